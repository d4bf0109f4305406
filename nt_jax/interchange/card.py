"""The model card beside an export: what the weights are, what they saw, how well they do."""

import hashlib
import pathlib
from collections.abc import Sequence

from nt_jax import __version__
from nt_jax.evaluation.summary import aligned, format_score, latest, title
from nt_jax.files import write_atomically
from nt_jax.model.presets import parameter_count
from nt_jax.report.record import Run

NAME = "README.md"

_LIBRARIES = {"hf": "transformers", "flax": "flax", "stablehlo": "jax", "onnx": "onnx"}
_TRANSFORMERS = """from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER"{options})
model = AutoModelForMaskedLM.from_pretrained("FOLDER"{options})
logits = model(**tokenizer("ATTCCG<mask>ATTCCG", return_tensors="pt")).logits"""
_NNX = """from model import load  # model.py of this folder

model = load("FOLDER")"""


def write_card(run: Run, step: int, layout: str, folder: pathlib.Path, proof: str) -> None:
    """Writes README.md into an exported folder, with a checksum of every other file in it.

    `proof` is what the comparison of both sides printed. Numbers that the run has not are left
    out, never made up, and so are paths of the machine it lies on.
    """
    config = run.experiment
    vocabulary = config.tokenizer.make()
    facts = [
        ["architecture", _architecture(run)],
        ["parameters", f"{parameter_count(config.model, vocabulary.vocab_size):,}"],
        [
            "tokenizer",
            f"{config.tokenizer.k}-mers, {vocabulary.vocab_size:,} tokens, `<cls>` first",
        ],
        ["layout", layout],
        ["written by", f"nt-jax {__version__}"],
    ]
    parts = [
        f"---\nlibrary_name: {_LIBRARIES.get(layout, 'nt-jax')}\npipeline_tag: fill-mask\n"
        f"tags: [dna, genomics, masked-lm]\n---\n# {config.name}",
        aligned(["", ""], facts),
        "## Use",
        _use(layout, folder),
        "## Training",
        _training(run, step),
        "## Evaluation",
        _evaluation(run, step),
        "## Same numbers",
        f"Compared before this was written:\n\n```\n{proof.strip()}\n```",
        "## Files",
        aligned(["file", "bytes", "sha256"], _files(folder)),
    ]
    write_atomically(folder / NAME, "\n\n".join(parts) + "\n")


def _architecture(run: Run) -> str:
    model = run.experiment.model
    gate = "gated " if model.ffn_gated else ""
    return (
        f"{model.num_layers} layers, width {model.embed_dim}, {model.num_heads} heads, "
        f"{model.positions} positions up to {model.max_positions:,} tokens, "
        f"{gate}{model.ffn_activation} feed-forward of {model.ffn_dim:,}"
    )


def _training(run: Run, step: int) -> str:
    config, record = run.experiment, run.record
    if "imported_from" in record:
        return f"Imported from `{_public(record['imported_from'])}`; nothing was trained by nt-jax."
    if "finetuned_from" in record:
        return (
            f"The encoder of `{_public(record['finetuned_from'])}`, fine-tuned on a labelled task; "
            "the head of language modelling is the one from before."
        )
    length, batch = config.data.sequence_length, config.train.global_batch
    masking, optim = config.masking, config.optim
    facts = [
        ["steps", f"{step:,}"],
        ["tokens seen", f"{step * batch * length:,}"],
        ["sequences", f"{length:,} tokens, {batch:,} a step"],
        ["selected", f"{masking.ratio:.0%} of the tokens"],
        ["of them", f"{masking.mask:.0%} `<mask>`, {masking.random:.0%} random"],
        ["optimizer", f"{optim.name}, {optim.schedule}, peak rate {optim.peak_lr:g}"],
        ["started from", _public(record.get("init_from") or "random weights")],
    ]
    if run.datacard:
        names = ", ".join(
            f"{source['name']} ({source['bases']:,} bases)" for source in run.datacard["sources"]
        )
        kind = " SIMULATED" if run.simulated else ""
        facts += [
            ["data", f"{names}{kind}"],
            ["windows", run.datacard["recipe"]["name"]],
            ["held out", ", ".join(run.datacard["validation"]) or "seeded blocks"],
        ]
    else:
        facts.append(["data", "no data card in the workdir"])
    facts.append(["dataset fingerprint", f"`{record['dataset']}`"])
    return aligned(["", ""], facts)


def _use(layout: str, folder: pathlib.Path) -> str:
    """The shortest way to the numbers."""
    if layout == "hf":
        own = (folder / "modeling_nt.py").is_file()
        python = _TRANSFORMERS.format(options=", trust_remote_code=True" if own else "")
    elif layout == "flax":
        python = _NNX
    elif (folder / "run.py").is_file():
        python = (folder / "run.py").read_text().strip()
    else:
        return "```\nnt-jax import FOLDER --workdir RUN\n```"
    return f"```python\n{python}\n```"


def _public(source: str) -> str:
    """Without the path of the machine it was on."""
    return pathlib.Path(source).name if source.startswith(("/", "..", "~")) else source


def _evaluation(run: Run, step: int) -> str:
    parts = []
    rows = [row for row in run.validation if row["step"] == step]
    if rows and rows[-1].get("mask_loss") is not None:
        row = rows[-1]
        parts.append(
            f"Validation windows: {row['mask_loss']:.4f} nats a `<mask>` token; k-mer frequencies "
            f"alone {row['unigram_mask_loss']:.4f}; difference {row['mask_difference']:+.4f} "
            f"[{row['mask_difference_low']:+.4f}, {row['mask_difference_high']:+.4f}]."
        )
    probes = [result for result in latest(run.probes) if result["step"] == step]
    if probes:
        names = [family["name"] for family in probes[0]["families"]]
        table = [
            [title(result), *(format_score(f["chosen"]["mcc"]) for f in result["families"])]
            for result in probes
        ]
        parts.append("Linear probes, MCC with 95 % interval:")
        parts.append(aligned(["task", *names], table))
    return "\n\n".join(parts) or "None recorded for this checkpoint."


def _files(folder: pathlib.Path) -> Sequence[Sequence[str]]:
    rows = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            rows.append([str(path.relative_to(folder)), f"{path.stat().st_size:,}", digest])
    return rows
