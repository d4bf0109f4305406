"""`write_report`: the run as one HTML file that loads nothing from anywhere."""

import html
import pathlib
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np

from nt_jax.config import to_json
from nt_jax.files import write_atomically
from nt_jax.metrics import FILE as METRICS
from nt_jax.model.factory import build_model
from nt_jax.report import plots
from nt_jax.report.elements import document, facts, figure, number, section, table
from nt_jax.report.plots import tokens_text
from nt_jax.report.record import Run, column, read_run
from nt_jax.report.time_spent import time_spent
from nt_jax.workdir import left_out

PAGE = "report.html"
_LABELS = {
    "dataset": "Dataset fingerprint",
    "init_from": "Started from",
    "versions": "Versions",
    "git_revision": "Git revision",
}
"""Names of config.json's entries besides the experiment."""


def write_report(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes WORKDIR/report.html and returns its path; InputError when it is no workdir.

    Works at any moment of a run; what is not there yet is named as missing.
    """
    folder = pathlib.Path(workdir)
    path = folder / PAGE
    write_atomically(path, render(read_run(folder)))
    return path


def render(run: Run) -> str:
    """The page as text."""
    name = html.escape(run.experiment.name)
    parts = [
        f"<h1>{name}</h1>",
        _state(run),
        *_warnings(run),
        section("In short", facts(_headline(run))),
        section("Training", _training(run)),
        section("Validation", _validations(run)),
        section("Where the time went", time_spent(run)),
        section("Probes", _probes(run)),
        section("Data", _data(run)),
        section("Configuration", _configuration(run)),
    ]
    return document(f"{name}: training report", parts)


def _state(run: Run) -> str:
    steps = run.experiment.train.steps
    if not run.train:
        text = "No step has been logged yet."
    else:
        step = run.train[-1]["step"]
        share = f"step {step:,} of {steps:,} ({step / steps:.0%})"
        text = f"Finished: {share}." if run.finished else f"Not finished: {share}."
        written = datetime.fromtimestamp((run.folder / METRICS).stat().st_mtime, UTC)
        text += f" Last row written {written:%Y-%m-%d %H:%M} UTC."
    return f'<p class="soft">{text}</p>'


def _warnings(run: Run) -> list[str]:
    texts = []
    if run.simulated:
        texts.append(
            "The training data are simulated. Nothing on this page says anything about a real "
            "genome."
        )
    elif any(result["simulated"] for result in run.probes):
        texts.append("Probe tasks marked (simulated) were made by a program.")
    texts += [f"Could not be read: {problem}" for problem in run.problems]
    return [f'<p class="warn">{html.escape(text)}</p>' for text in texts]


def _headline(run: Run) -> list[tuple[str, str]]:
    rows = [("Model", _model_text(run))]
    loss = column(run.train, "loss")
    loss = loss[np.isfinite(loss)]
    if run.train:
        rows.append(("Tokens seen", tokens_text(run.train[-1]["tokens"])))
    if loss.size:
        rows.append(("Training loss, smoothed", f"{plots.smooth(loss)[-1]:.4f} nats a token"))
    if run.validation:
        last = run.validation[-1]
        rows += [
            (
                "Validation loss",
                f"{number(last, 'loss', '.4f')} nats a token (perplexity "
                f"{number(last, 'perplexity', ',.0f')}), step {last['step']:,}",
            ),
            (
                "On <mask> alone",
                f"{number(last, 'mask_loss', '.4f')}; unigram baseline "
                f"{number(last, 'unigram_mask_loss', '.4f')}",
            ),
            ("Model minus unigram", _difference_text(last)),
            ("Accuracy on <mask>", f"{number(last, 'mask_accuracy', '.2%')}"),
        ]
    speed, mfu = column(run.train, "tokens_per_s"), column(run.train, "mfu")
    if np.isfinite(speed).any():
        text = f"{tokens_text(float(np.nanmedian(speed)))} tokens/s (median)"
        if np.isfinite(mfu).any():
            text += f", {np.nanmedian(mfu):.1%} of peak FLOP/s"
        rows.append(("Throughput", text))
        rows.append(("Time in logged steps", _hours(run)))
    skipped = column(run.train, "skipped")
    if np.isfinite(skipped).any() and np.nanmax(skipped) > 0:
        rows.append(("Skipped steps (non-finite)", f"{int(np.nanmax(skipped)):,}"))
    spikes = column(run.train, "spikes")
    if np.isfinite(spikes).any() and np.nanmax(spikes) > 0:
        rows.append(("Skipped steps (spikes)", f"{int(np.nanmax(spikes)):,}"))
    if rolled_back := left_out(run.record):
        batches = sum(number for _, number in rolled_back)
        rows.append(("Rollbacks", f"{len(rolled_back)}, {batches:,} batches left out"))
    return rows


def _model_text(run: Run) -> str:
    experiment = run.experiment
    tokenizer = experiment.tokenizer.make()
    model = build_model(experiment.model, tokenizer)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    return (
        f"{count:,} parameters: {experiment.model.num_layers} layers, width "
        f"{experiment.model.embed_dim}, {experiment.model.num_heads} heads; {tokenizer.k}-mers, "
        f"{experiment.data.sequence_length:,} tokens a sequence, "
        f"{experiment.train.global_batch:,} sequences a step"
    )


def _difference_text(row: dict[str, Any]) -> str:
    low, high = row.get("mask_difference_low"), row.get("mask_difference_high")
    if low is None or high is None:
        return "not measured"
    verdict = "no different within the interval"
    if high < 0:
        verdict = "the model knows more than k-mer frequencies"
    if low > 0:
        verdict = "the model is behind k-mer frequencies"
    value = number(row, "mask_difference", "+.4f")
    return f"{value} [{low:+.4f}, {high:+.4f}] nats a token: {verdict}"


def _hours(run: Run) -> str:
    steps = column(run.train, "step")
    seconds = float(np.nansum(np.diff(steps, prepend=0.0) * column(run.train, "seconds")))
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _training(run: Run) -> str:
    if not run.train:
        return '<p class="soft">No training rows in metrics.jsonl yet: no curves.</p>'
    figures = [
        figure(
            plots.loss_plot(run),
            "Loss against tokens. The first steps may lie above the frame. The unigram line is "
            "the loss of k-mer frequencies on the same <mask> positions.",
            width="page",
        )
    ]
    if np.isfinite(column(run.validation, "mask_difference")).any():
        figures.append(
            figure(
                plots.advantage_plot(run),
                "Model minus unigram on <mask>, 95 % interval over windows; below 0 is better.",
            )
        )
    for name, label, caption in (
        ("lr", "learning rate", "Learning rate."),
        ("grad_norm", "gradient norm", "Global gradient norm before clipping."),
        ("tokens_per_s", "tokens/s", "Throughput."),
    ):
        if np.isfinite(column(run.train, name)).any():
            figures.append(figure(plots.train_plot(run, name, label), caption))
    return f'<div class="plots">{"".join(figures)}</div>'


def _validations(run: Run) -> str:
    if not run.evaluations:
        return '<p class="soft">No evaluation has been logged yet.</p>'
    header = ["split", "step", "tokens", "loss", "accuracy", "&lt;mask&gt; loss", "unigram"]
    header += ["model minus unigram"]
    rows = []
    for split, evaluated in run.evaluations.items():
        for row in evaluated:
            low, high = (number(row, f"mask_difference_{end}", "+.4f") for end in ("low", "high"))
            rows.append(
                [
                    split,
                    f"{row['step']:,}",
                    tokens_text(row["tokens"]) if row.get("tokens") is not None else "–",
                    number(row, "loss", ".4f"),
                    number(row, "accuracy", ".2%"),
                    number(row, "mask_loss", ".4f"),
                    number(row, "unigram_mask_loss", ".4f"),
                    f"{number(row, 'mask_difference', '+.4f')} [{low}, {high}]",
                ]
            )
    shown, older = rows[-8:], rows[:-8]
    body = table(header, shown)
    if older:
        body += f"<details><summary>{len(older)} earlier evaluations</summary>"
        body += f"{table(header, older)}</details>"
    return body


def _probes(run: Run) -> str:
    if not run.probes:
        return (
            '<p class="soft">None yet: <code>nt-jax probe --checkpoint '
            f"{html.escape(str(run.folder))} --task PATH --out "
            f"{html.escape(str(run.folder / 'probe'))}</code></p>"
        )
    # scikit-learn and scipy, which take longer to import than the rest of the page to draw.
    from nt_jax.report.probes import tables_and_plots

    return tables_and_plots(run.probes)


def _data(run: Run) -> str:
    card = run.datacard
    if card is None:
        where = html.escape(run.experiment.data.path) or "no path in the configuration"
        return (
            f'<p class="soft">The data card is not to be found from here ({where}), so this page '
            "cannot say whether the data are real or simulated.</p>"
        )
    sources = card.get("sources", [])
    recipe = card.get("recipe", {})
    splits = card.get("splits", {})
    rows = [("Kind", str(card.get("kind", "not stated")))]
    if recipe:
        rows.append(
            (
                "Recipe",
                f"{recipe.get('name')}: windows of {recipe.get('length'):,} bases, stride "
                f"{recipe.get('stride'):,}, jitter {recipe.get('jitter'):,}",
            )
        )
    if splits:
        rows.append(("Windows", ", ".join(f"{key} {n:,}" for key, n in splits.items())))
    if sources:
        bases = sum(source.get("bases", 0) for source in sources)
        rows.append(("Sources", f"{len(sources):,} files, {bases:,} bases"))
    held_out = [
        f"{split}: {', '.join(card[split])}" for split in ("validation", "test") if card.get(split)
    ]
    if held_out:
        rows.append(("Held out", "; ".join(held_out)))
    dropped = {key: n for key, n in card.get("dropped", {}).items() if n}
    if dropped:
        texts = (f"{key.replace('_', ' ')} {n:,}" for key, n in dropped.items())
        rows.append(("Dropped", ", ".join(texts)))
    for key, label in (("licence", "Licence"), ("notes", "Notes"), ("fingerprint", "Fingerprint")):
        if card.get(key):
            rows.append((label, str(card[key])))
    body = facts(rows)
    if sources:
        cells = [
            [
                html.escape(str(source.get("name", "–"))),
                f"{source.get('contigs', 0):,}",
                f"{source.get('bases', 0):,}",
                f"{source['gc']:.1%}" if "gc" in source else "–",
            ]
            for source in sources
        ]
        listed = table(["source", "contigs", "bases", "GC"], cells)
        body += f"<details><summary>All sources</summary>{listed}</details>"
    return body


def _configuration(run: Run) -> str:
    rows = [
        (_LABELS.get(key, key), _plain(value))
        for key, value in run.record.items()
        if value is not None
    ]
    config = html.escape(to_json(run.experiment))
    return facts(rows) + f"<details><summary>Every setting</summary><pre>{config}</pre></details>"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)
