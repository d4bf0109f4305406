"""`nt-jax score`: variants in, annotated variants out."""

import argparse
import json
import pathlib
from typing import Any

from nt_jax.commands import options as common
from nt_jax.commands.bars import count_bar

MOST_TEXTS = 8
"""Texts of a label that are named on the terminal; the JSON has them all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    parser.add_argument("--fasta", required=True, metavar="REF", help="reference genome")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--vcf", metavar="IN", help="VCF, VCF.gz or BCF; genotypes are not read")
    given.add_argument(
        "--table", metavar="T",
        help="TSV, CSV or Parquet with chrom,pos (1-based),ref,alt; - is an allele of no bases",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, action="append", nargs="+", type=pathlib.Path,
        metavar="OUT", help="OUT.vcf.gz (with its index) and/or OUT.parquet",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=int, default=0, metavar="TOKENS", help="0 is the training length"
    )
    parser.add_argument(
        "--layers", default="", help="of the distances, 1-based; default: the middle and the last"
    )
    common.pooling(parser)
    parser.add_argument(
        "--label", default=None, metavar="NAME[<X|>X|=POS,..:NEG,..]",
        help="INFO field or column: measured effects, or two classes; rank the scores by it. "
        "CLNSIG=Pathogenic,Likely_pathogenic:Benign,Likely_benign leaves all other texts "
        "unlabelled; NAME=TEXT makes all other texts negatives",
    )  # fmt: skip
    parser.add_argument(
        "--group", default=None, metavar="NAME",
        help="INFO field or column: rank within each of its values as well",
    )  # fmt: skip
    parser.add_argument(
        "--controls", action="store_true", help="score a random initialisation as well"
    )
    common.as_json(parser, "summary")


def run(options: argparse.Namespace) -> None:
    """Writes the outputs and prints what was scored, what was not, and the labelled set."""
    common.end_on_sigterm()
    from nt_jax import runtime

    runtime.configure()
    # Again: an accelerator's library may have put a handler of its own in its place.
    common.end_on_sigterm()
    from nt_jax.evaluation.variants.job import score

    with count_bar("records") as progress:
        summary = score(
            options.checkpoint,
            options.fasta,
            [out for group in options.out for out in group],
            vcf=options.vcf,
            table=options.table,
            layers=common.layers(options.layers),
            pooling=options.pooling,
            window=options.window,
            label=options.label,
            group=options.group,
            with_controls=options.controls,
            progress=progress,
        )
    print(json.dumps(summary, indent=1) if options.json else format_summary(summary))


def format_summary(summary: dict[str, Any]) -> str:
    """The summary for people."""
    lines = [
        f"{summary['scored']:,} of {summary['alleles']:,} alleles of {summary['records']:,} "
        f"records scored in {summary['seconds']:,.1f} s",
        *(f"skipped, {reason}: {count:,}" for reason, count in summary["skipped"].items()),
    ]
    if "label" in summary:
        lines += ["", *_table(summary["label"])]
    written = [*summary["outputs"], *([summary["results"]] if "results" in summary else [])]
    return "\n".join([*lines, f"written: {', '.join(written)}"])


def _table(label: dict[str, Any]) -> list[str]:
    """Scores against labels, the groups below the whole."""
    metrics = [name for name in label["scores"][0] if name not in ("score", "column", "group")]
    count = f"{label['alleles']:,} labelled alleles ({label['unlabelled']:,} without a label)"
    if "positives" in label:
        count += f", {label['positives']:,} positive (label {label['positive']:g})"
    lines = [f"{label['label']}: {count}; 95 % intervals"]
    lines += [
        f"  {side}: {_texts(found)}" for side, found in label.get("texts", {}).items() if found
    ]
    groups = {None: label["alleles"], **label["groups"]}
    for group, alleles in groups.items():
        name = "all" if group is None else group
        lines.append(f"{name + f' ({alleles:,})':<32}" + "".join(f"{m:>26}" for m in metrics))
        for entry in label["scores"]:
            if entry["group"] == group:
                numbers = "".join(f"{_number(entry[metric]):>26}" for metric in metrics)
                lines.append(f"  {entry['score']:<30}{numbers}")
    return lines


def _texts(found: dict[str, int]) -> str:
    """The most frequent ones by name."""
    shown = [f"{text} {count:,}" for text, count in list(found.items())[:MOST_TEXTS]]
    if len(found) > MOST_TEXTS:
        rest = sum(found.values()) - sum(list(found.values())[:MOST_TEXTS])
        shown.append(f"{len(found) - MOST_TEXTS} more {rest:,}")
    return ", ".join(shown)


def _number(entry: dict[str, float | None]) -> str:
    if entry["value"] is None:
        return "-"
    text = f"{entry['value']:.3f}"
    if entry["low"] is not None:
        text += f" [{entry['low']:.3f}, {entry['high']:.3f}]"
    return text
