"""The tidy table of a study: a row a run, made of the folders; the same runs give the same bytes.

Times are in a table of their own (timings.tsv), as they differ from one execution to the next.
"""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.results import difference_name
from nt_jax.evaluation.stored import read_results
from nt_jax.files import write_atomically
from nt_jax.ledger import read_lives, totals
from nt_jax.metrics import read_metrics
from nt_jax.studies.folder import Folder
from nt_jax.studies.grid import Study, StudyRun
from nt_jax.studies.quantities import quantities

TSV, JSON, TIMINGS = "table.tsv", "table.json", "timings.tsv"
Cell = str | int | float | None
Row = dict[str, Cell]

COLUMNS: Mapping[str, str] = {
    "run": "name of the run and of its folder",
    "state": "done: trained and evaluated; trained: not yet evaluated; open: everything else",
    "held_out": "yes where the loss is predicted before the run; else no",
    "source": "dataset that it is trained on",
    "parameters": "all parameters",
    "parameters_in_blocks": "without token and position embeddings and without the LM head",
    "bases_per_token": "k",
    "sequence_length": "tokens of a sequence, <cls> included",
    "masking": "share of the tokens that is selected, and the shares of those that become <mask> "
    "and a random token",
    "eval_windows": "validation windows that are asked for; 0 is all",
    "global_batch": "sequences of a step",
    "steps": "optimizer steps",
    "tokens": "steps * global_batch * sequence_length, <cls> included",
    "bases": "steps * global_batch * (sequence_length - 1) * k: where every token but <cls> is a "
    "whole k-mer; windows with N have fewer",
    "flops": "model FLOPs of training by formula: matrix products, backward twice forward, "
    "nothing computed twice",
    "windows": "validation windows that the losses below are of, at the last step",
    "mask_loss": "nats a token on <mask> positions",
    "mask_nats_per_base": "mask_loss / bases_per_token",
    "mask_bits_per_base": "bits on <mask> positions / bases that those tokens really stand for "
    "(a single letter is one base, not k)",
    "loss": "nats a token on all selected positions (<mask>, random and kept)",
    "nats_per_base": "loss / bases_per_token",
    "mask_accuracy": "share of <mask> positions whose likeliest token is the right one",
    "accuracy": "the same of all selected positions",
    "unigram_mask_loss": "nats a token of the training split's token frequencies on the same "
    "<mask> positions",
    "unigram_mask_nats_per_base": "unigram_mask_loss / bases_per_token",
    "mask_difference": "mask_loss - unigram_mask_loss",
    "mask_difference_low": "its 95 % interval over windows, lower end",
    "mask_difference_high": "its 95 % interval over windows, upper end",
    "skipped": "steps that were skipped (not finite)",
}
"""Columns that every table has, in their order, and what they mean. Tags stand behind `source`
as `tag:KEY`; results of evaluation jobs at the end, as `on:SOURCE:METRIC` and
`probe:TASK:METRIC`. A cell is empty where there is no number (yet)."""

PATTERNS: Mapping[str, str] = {
    "tag:KEY": "what the study says of the run",
    "on:SOURCE:METRIC": "the same metrics on the windows of another dataset; the unigram is that "
    "of the run's own training split",
    "probe:TASK:METRIC": "score of the layer chosen within the training sequences, with its 95 % "
    "bootstrap interval (:low, :high), and its paired differences to the controls (_minus_CONTROL)",
}
_LOSSES = (
    "windows", "mask_loss", "mask_nats_per_base", "mask_bits_per_base", "loss", "nats_per_base",
    "mask_accuracy", "accuracy", "unigram_mask_loss", "unigram_mask_nats_per_base",
    "mask_difference", "mask_difference_low", "mask_difference_high",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of the runs, all with the same columns."""

    study: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_tsv(self) -> str:
        """Tab-separated; numbers as Python writes them, so that none is rounded."""
        return _tsv(self.columns, self.rows)

    def to_json(self) -> str:
        """Rows as objects, with what the columns mean."""
        about = {**COLUMNS, **PATTERNS}
        whole = {"study": self.study, "columns": about, "rows": self.rows}
        return json.dumps(whole, indent=1) + "\n"


def collect(study: Study, root: pathlib.Path) -> Table:
    """Reads all runs of a study's folder, whatever is there. InputError for damaged files."""
    folder = Folder(root)
    rows = [_row(run, folder) for run in study.runs]
    tags = dict.fromkeys(f"tag:{key}" for run in study.runs for key in run.tags)
    names = list(COLUMNS)
    at = names.index("source") + 1
    known = [*names[:at], *tags, *names[at:]]
    more = sorted({name for row in rows for name in row} - set(known))
    columns = (*known, *more)
    whole = tuple({name: row.get(name) for name in columns} for row in rows)
    return Table(study.name, columns, whole)


def masking_text(masking: MaskingConfig) -> str:
    """The column `masking`."""
    return f"{masking.ratio:g} {masking.mask:g} {masking.random:g}"


def _row(run: StudyRun, folder: Folder) -> Row:
    training, *evaluations = folder.jobs(run)
    trained = training.is_done()
    done = trained and all(job.is_done() for job in evaluations)
    row: Row = {
        "run": run.name,
        "state": "done" if done else "trained" if trained else "open",
        "held_out": "yes" if run.held_out else "no",
        "source": run.source,
        **{f"tag:{key}": value for key, value in run.tags.items()},
        **dataclasses.asdict(quantities(run.experiment)),
        "masking": masking_text(run.experiment.masking),
        "eval_windows": run.experiment.train.eval_windows,
    }
    if not trained:
        return row
    k = run.experiment.tokenizer.k
    last = _last(folder.workdir(run), run.experiment.train.steps)
    row |= _losses(last["validation"], k) if "validation" in last else {}
    row["skipped"] = last["train"]["skipped"]
    for loss in run.losses_on:
        path = folder.loss(run, loss)
        if path.exists():
            row |= {f"on:{loss.name}:{key}": v for key, v in _losses(_read(path), k).items()}
    for probe in run.probes:
        row |= dict(_scores(folder.probe(run, probe), probe.task, run.experiment.train.steps))
    return row


def _last(workdir: pathlib.Path, step: int) -> dict[str, dict[str, Any]]:
    """Rows of the last step: train, and the splits that were evaluated."""
    try:
        rows = [row for row in read_metrics(workdir) if row["step"] == step]
    except (ValueError, KeyError) as error:
        raise InputError(f"{workdir / 'metrics.jsonl'}: damaged ({error})") from error
    found = {row.get("split", "train"): row for row in rows}
    if "train" not in found:
        raise InputError(f"{workdir / 'metrics.jsonl'}: no row of step {step}, the last one")
    return found


def _losses(result: Mapping[str, Any], k: int) -> Row:
    """The columns of `_LOSSES` from a validation row or a result of `nt-jax evaluate`."""
    found = {name: result[name] for name in _LOSSES if name in result}
    for name in ("mask_loss", "loss", "unigram_mask_loss"):
        if result.get(name) is not None:
            found[f"{name.removesuffix('loss')}nats_per_base"] = result[name] / k
    return {name: found.get(name) for name in _LOSSES}


def _scores(out: pathlib.Path, task: str, step: int) -> Iterator[tuple[str, Cell]]:
    """Scores of the chosen layer at the last step."""
    for result in read_results(out / "probe.json"):
        if result["step"] != step:
            continue
        trained = result["families"][0]["chosen"]
        for metric in SCORERS[result["kind"]].names:
            name = f"probe:{task}:{metric}"
            yield name, trained[metric]["value"]
            yield f"{name}:low", trained[metric]["low"]
            yield f"{name}:high", trained[metric]["high"]
            for entry in result["differences"]:
                against = difference_name(metric, entry["against"])
                yield f"probe:{task}:{against}", entry[metric]["value"]


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it to evaluate again") from error


# --- Times ------------------------------------------------------------------------------------

TIME_COLUMNS: Mapping[str, str] = {
    "run": "name of the run",
    "starts": "lives of its training process",
    "wall_seconds": "of all its lives; what was done twice and start-up included, pauses between "
    "lives not",
    "step_seconds": "in steps that were kept",
    "tokens_per_s": "median of the rows of metrics.jsonl",
}


def timings(study: Study, root: pathlib.Path) -> list[Row]:
    """How long the runs took, read from their ledgers."""
    return [_time(run, Folder(root).workdir(run)) for run in study.runs]


def _time(run: StudyRun, workdir: pathlib.Path) -> Row:
    row: Row = dict.fromkeys(TIME_COLUMNS)
    row["run"] = run.name
    try:
        lives, rows = read_lives(workdir), read_metrics(workdir)
        seconds = totals(lives)
        speeds = [one["tokens_per_s"] for one in rows if "split" not in one]
    except (ValueError, KeyError, TypeError):
        return row
    if lives:
        row["starts"] = len(lives)
        row["wall_seconds"] = sum(seconds.values()) - seconds["idle"]
        row["step_seconds"] = seconds["step"]
    if speeds:
        row["tokens_per_s"] = statistics.median(speeds)
    return row


# --- Files ------------------------------------------------------------------------------------


def write(table: Table, times: Iterable[Row], root: pathlib.Path) -> None:
    """Writes table.tsv, table.json and timings.tsv."""
    write_atomically(root / TSV, table.to_tsv())
    write_atomically(root / JSON, table.to_json())
    write_atomically(root / TIMINGS, _tsv(tuple(TIME_COLUMNS), times))


def _tsv(columns: Iterable[str], rows: Iterable[Row]) -> str:
    names = list(columns)
    lines = ["\t".join(names), *("\t".join(_text(row[name]) for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    return str(cell)
