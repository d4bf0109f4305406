"""`nt-jax evaluate`: masked loss, perplexity and accuracy of a checkpoint."""

import argparse
import json
import pathlib

from nt_jax.commands import options as common


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", default=None, metavar="DIR", help="dataset folder")
    where.add_argument("--fasta", default=None, metavar="F", help="FASTA, plain or compressed")
    parser.add_argument("--split", default="validation", help="split of the dataset")
    parser.add_argument("--windows", type=int, default=0, help="windows, evenly; 0 is all")
    parser.add_argument("--batch", type=int, default=16, help="windows at a time")
    parser.add_argument("--length", type=int, default=0, help="tokens; 0 is as trained")
    parser.add_argument(
        "--out", type=pathlib.Path, default=None,
        help="write the result here too: .parquet or .jsonl as rows of the table that all "
        "evaluation jobs share, any other name as JSON",
    )  # fmt: skip
    common.as_json(parser)


def run(options: argparse.Namespace) -> None:
    """Prints the result as a table or JSON."""
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.evaluation.masked import evaluate, format_result, write_result

    result = evaluate(
        options.checkpoint,
        data_dir=options.data,
        fasta=options.fasta,
        split=options.split,
        windows=options.windows,
        batch=options.batch,
        length=options.length,
    )
    if options.out:
        write_result(options.out, result)
    print(json.dumps(result, indent=2) if options.json else format_result(result))
