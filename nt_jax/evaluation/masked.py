"""`nt-jax evaluate`: masked-token loss, perplexity and accuracy of any checkpoint on any genome."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import data, workdir
from nt_jax.checkpoint import parse_checkpoint, restore_params
from nt_jax.errors import InputError
from nt_jax.evaluation.loading import tokens_seen
from nt_jax.evaluation.results import ENDINGS, Row, difference_name, write_rows
from nt_jax.files import write_atomically
from nt_jax.model.factory import build_model
from nt_jax.model.flash import attention_here
from nt_jax.step import make_eval_step
from nt_jax.validation import unigram_log_probabilities, validate

METRICS = (
    "loss", "perplexity", "accuracy", "mask_loss", "mask_perplexity", "mask_accuracy",
    "mask_bits_per_base", "unigram_mask_loss", "unigram_bits_per_base",
)  # fmt: skip
"""Numbers of a result that become rows, besides the difference to the unigram baseline."""


def evaluate(
    checkpoint: str,
    *,
    data_dir: str | None = None,
    fasta: str | None = None,
    split: str = "validation",
    windows: int = 0,
    batch: int = 16,
    length: int = 0,
) -> dict[str, Any]:
    """Masked-LM metrics of `DIR[@STEP]` on a dataset's split or on the windows of a FASTA.

    Args:
        checkpoint: workdir, with `@STEP` for another step than the newest.
        data_dir: dataset folder; exactly one of it and `fasta` is given.
        fasta: FASTA file, cut side by side into windows of the context's length.
        split: split of the dataset.
        windows: evenly spread windows to read; 0 is all.
        batch: windows at a time.
        length: tokens of a sequence, `<cls>` included; 0 is the training length.

    Returns nats a token, bits a base and the paired difference to the unigram k-mer baseline,
    whose counts are those of the run's training split. Raises InputError.
    """
    folder, wanted = parse_checkpoint(checkpoint)
    params, step, experiment = restore_params(folder, wanted)
    tokenizer = experiment.tokenizer.make()
    length = length or experiment.data.sequence_length
    if length > experiment.model.max_positions:
        raise InputError(
            f"--length {length}: {folder} takes at most {experiment.model.max_positions} tokens"
        )
    source: data.WindowDataset | data.FastaWindows
    if fasta is not None:
        source = data.fasta_windows(fasta, (length - 1) * tokenizer.k)
        split = data.FASTA_SPLIT
    else:
        source = data.open_dataset(data_dir or experiment.data.path)
    counts = workdir.stored_counts(folder)
    if counts is None:
        raise InputError(f"{folder}: no {workdir.UNIGRAM} with the training split's token counts")
    unigram = unigram_log_probabilities(counts, tokenizer)
    model = build_model(experiment.model, tokenizer, attention_here(experiment.model))
    step_function = jax.jit(make_eval_step(model, tokenizer, experiment.masking))
    batches = data.eval_batches(source, tokenizer, split, batch, length, windows)
    result = validate(step_function, jnp.asarray, params, batches, unigram)
    return {
        "checkpoint": str(folder),
        "step": step,
        "tokens": tokens_seen(experiment, step),
        "data": str(fasta or source.path),
        "split": split,
        "sequence_length": length,
        **result,
    }


def result_rows(result: dict[str, Any]) -> list[Row]:
    """The result of `evaluate` in the schema of `results`, all of `METRICS`.

    The task is the data's name and its split, the method `masked tokens`, as in the attention job.
    """
    common: dict[str, Any] = {
        "checkpoint": result["checkpoint"],
        "step": result["step"],
        "tokens": result["tokens"],
        "task": f"{pathlib.Path(result['data']).name}: {result['split']}",
        "method": "masked tokens",
    }
    rows = [
        Row(**common, metric=metric, control=metric.startswith("unigram"), value=result[metric])
        for metric in METRICS
    ]
    difference = {
        part: result[f"mask_difference{end}"]
        for part, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    return [*rows, Row(**common, metric=difference_name("mask_loss", "unigram"), **difference)]


def write_result(out: pathlib.Path, result: dict[str, Any]) -> None:
    """Rows of the common table for `.parquet` and `.jsonl`, for any other ending the JSON."""
    if out.suffix in ENDINGS:
        write_rows(out, result_rows(result))
    else:
        write_atomically(out, json.dumps(result, indent=2) + "\n")


def format_result(result: dict[str, Any]) -> str:
    """The result as a small table."""
    where = f"{result['data']} ({result['split']}, {result['windows']:,} windows)"
    rows = [
        ("", "all selected", "<mask> only", "unigram"),
        ("loss (nats/token)", result["loss"], result["mask_loss"], result["unigram_mask_loss"]),
        ("bits/base", None, result["mask_bits_per_base"], result["unigram_bits_per_base"]),
        (
            "perplexity",
            result["perplexity"],
            result["mask_perplexity"],
            float(np.exp(result["unigram_mask_loss"])),
        ),
        ("accuracy", result["accuracy"], result["mask_accuracy"], None),
    ]
    lines = [
        f"{pathlib.Path(result['checkpoint']).name} at step {result['step']:,} on {where}",
        *(
            f"{name:<18}" + "".join(f"{_number(value):>14}" for value in values)
            for name, *values in rows
        ),
        f"difference to unigram on <mask>: {result['mask_difference']:+.4f} nats/token, "
        f"95 % interval [{result['mask_difference_low']:+.4f}, "
        f"{result['mask_difference_high']:+.4f}]",
    ]
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,.4f}"
