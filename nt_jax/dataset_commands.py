"""What `nt-jax data build|verify|trace` do: progress and tables around data_pipelines."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from data_pipelines import builders
from nt_jax import data, workdir
from nt_jax.errors import InputError

SHOWN_BASES = 48


def build(
    options: argparse.Namespace,
    fastas: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
) -> None:
    """Cuts FASTA files into `options.out` with a progress bar, then prints the data card."""
    if not fastas:
        raise InputError("nt-jax data build fasta: name at least one file with --fasta")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("surveying", total=None)

        def tell(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        built = builders.build(
            fastas,
            options.out,
            recipe=options.recipe,
            validation=validation,
            test=test,
            seed=options.seed,
            workers=options.workers,
            kind=options.kind,
            progress=tell,
        )
    if built.existed:
        console.print(f"{built.path}: this very dataset is there already", highlight=False)
    _print_card(built.datacard)
    print(built.path)


def _print_card(card: dict) -> None:
    splits = list(card["splits"])
    table = Table(title=f"{card['kind']} sequences, recipe {card['recipe']['name']}")
    table.add_column("source")
    for name in ("contigs", "bases", "N", "GC", *splits):
        table.add_column(name, justify="right")
    for source in card["sources"]:
        table.add_row(
            source["name"],
            f"{source['contigs']:,}",
            f"{source['bases']:,}",
            f"{source['n']:,}",
            f"{source['gc']:.3f}",
            *(f"{source['windows'].get(split, 0):,}" for split in splits),
        )
    Console(stderr=True).print(table)


def verify(folder: pathlib.Path, as_json: bool) -> int:
    """Checks a dataset; prints the findings and returns 0, or 1 when something is wrong."""
    from data_pipelines.verify import verify as check

    report = check(folder)
    if as_json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        for name, value in dataclasses.asdict(report).items():
            print(f"{name:<24} {value}")
    return 1 if report.problems else 0


def trace(folder: pathlib.Path, step: int, row: int | None, as_json: bool) -> None:
    """Prints which windows fed optimizer step `step` (1 is the first) of the run in `folder`."""
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
        dataset, tokenizer, experiment.data, global_batch=train.global_batch, seed=train.seed
    )
    rows = range(train.global_batch) if row is None else [row]
    if not as_json:
        print(f"{'row':>5} {'source':<28} {'contig':<16} {'start':>12} {'end':>12} s epoch bases")
    for number in rows:
        ref = data.locate(order, step - 1, number)
        window = dataset.window("train", ref.index)
        tokens = data.crop(window["sequence"], ref, tokenizer, experiment.data.sequence_length)
        bases = tokenizer.decode(tokens)
        # The context's bases; Ns take a token each, so fewer may be read, from the strand's start.
        start = window["start"] + ref.offset
        end = start + (experiment.data.sequence_length - 1) * tokenizer.k
        start, end = (end - len(bases), end) if ref.reverse else (start, start + len(bases))
        found = {
            "row": number,
            "source": window["source"],
            "contig": window["contig"],
            "start": start,
            "end": end,
            "strand": "-" if ref.reverse else "+",
            "haplotype": None,
            "epoch": ref.epoch,
            "window": ref.index,
            "bases": bases,
        }
        if as_json:
            print(json.dumps(found))
        else:
            print(
                f"{number:>5} {found['source']:<28} {found['contig']:<16} {start:>12,} "
                f"{found['end']:>12,} {found['strand']} {ref.epoch:>5} {bases[:SHOWN_BASES]}..."
            )
    sys.stdout.flush()
