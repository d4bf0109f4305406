"""`nt-jax data trace`: which windows fed an optimizer step."""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from nt_jax.errors import InputError

SHOWN_BASES = 48
TOKENS_A_LINE = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR", help="folder of the run")
    parser.add_argument("--step", type=int, required=True, help="optimizer step, from 1")
    parser.add_argument("--row", type=int, default=None, help="one sequence of the batch, from 0")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> None:
    """Prints a row for every window of the batch."""
    # Masks are the same bits on any device, and a run may hold the accelerators.
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax.numpy as jnp
    import numpy as np

    from nt_jax import data, workdir
    from nt_jax.masking import mask_tokens, row_keys

    folder, step, row = options.workdir, options.step, options.row
    experiment, record = workdir.read_config(folder)
    dataset = data.open_dataset(experiment.data.path)
    if dataset.fingerprint != record["dataset"]:
        raise InputError(f"{experiment.data.path}: not the dataset that {folder} was trained on")
    train = experiment.train
    if not 1 <= step <= train.steps:
        raise InputError(f"--step {step}: the run has steps 1 to {train.steps}")
    if row is not None and not 0 <= row < train.global_batch:
        raise InputError(f"--row {row}: a batch has rows 0 to {train.global_batch - 1}")
    tokenizer = experiment.tokenizer.make()
    order = data.train_order(
        dataset,
        tokenizer,
        experiment.data,
        global_batch=train.global_batch,
        seed=train.seed,
        left_out=workdir.left_out(record),
    )
    read = data.window_reader(dataset, experiment.data)
    length = (experiment.data.sequence_length - 1) * tokenizer.k
    keys = row_keys(train.seed, step - 1, train.global_batch)
    rows = range(train.global_batch) if row is None else [row]
    if not options.json:
        print(
            f"{'row':>5} {'source':<28} {'contig':<16} {'start':>12} {'end':>12} s {'sample':<10} "
            "epoch bases"
        )
    for number in rows:
        ref = data.locate(order, step - 1, number)
        window = dataset.window("train", ref.index)
        drawn = read(dataset.records("train")[ref.index], ref.draw)
        tokens = data.crop(drawn.bases, ref, tokenizer, experiment.data.sequence_length)
        bases = tokenizer.decode(tokens)
        # The context's bases; Ns take a token each, so fewer may be read, from the strand's start.
        first = ref.offset + length - len(bases) if ref.reverse else ref.offset
        sample, side = None, None
        if drawn.haplotype is not None:
            sample, side = dataset.sample(window["source"], drawn.haplotype)
        found = {
            "row": number,
            "source": window["source"],
            "contig": window["contig"],
            "start": drawn.position(first),
            "end": drawn.position(first + len(bases) - 1) + 1,
            "strand": "-" if ref.reverse else "+",
            "sample": sample,
            "haplotype": side,
            "epoch": ref.epoch,
            "window": ref.index,
            "bases": bases,
        }
        masked = mask_tokens(
            keys[number][None], jnp.asarray(tokens)[None], tokenizer, experiment.masking
        )
        found |= {
            "tokens": tokens.tolist(),
            "inputs": masked.inputs[0].tolist(),
            "selected": np.sort(masked.positions[0][masked.weights[0] > 0]).tolist(),
        }
        if options.json:
            print(json.dumps(found))
        else:
            who = "" if sample is None else f"{sample}:{side}"
            print(
                f"{number:>5} {found['source']:<28} {found['contig']:<16} {found['start']:>12,} "
                f"{found['end']:>12,} {found['strand']} {who:<10} {ref.epoch:>5} "
                f"{bases[:SHOWN_BASES]}..."
            )
            if row is not None:
                _print_tokens(found, tokenizer.tokens)
    sys.stdout.flush()


def _print_tokens(found: dict, names: Sequence[str]) -> None:
    """The tokens of a row; behind those that were selected, what the model saw."""
    selected = set(found["selected"])
    for first in range(0, len(found["tokens"]), TOKENS_A_LINE):
        places = range(first, min(first + TOKENS_A_LINE, len(found["tokens"])))
        shown = [
            names[found["tokens"][i]] + (f"[{names[found['inputs'][i]]}]" if i in selected else "")
            for i in places
        ]
        print(f"{first:>6}  {' '.join(shown)}")
