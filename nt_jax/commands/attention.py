"""`nt-jax attention`: attention, masked accuracy and embeddings by element class."""

import argparse
import contextlib
import json
import pathlib
import sys

from nt_jax.commands import options as common


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    parser.add_argument("--fasta", required=True, metavar="F", help="genome, plain or compressed")
    parser.add_argument(
        "--gff", required=True, metavar="A", help="its annotation: GFF3, GTF or BED, told apart"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument(
        "--contig", action="append", nargs="+", default=[], metavar="NAME",
        help="contigs of the FASTA; default: all that both files have",
    )  # fmt: skip
    parser.add_argument("--windows", type=int, default=1000, help="windows, evenly; 0 is all")
    parser.add_argument("--length", type=int, default=0, help="tokens; 0 is as trained")
    parser.add_argument(
        "--threshold", type=float, default=0.3, help="attention above which a pair counts"
    )
    parser.add_argument("--promoter", type=int, default=250, help="bases upstream of a transcript")
    parser.add_argument(
        "--elements", type=int, default=500, help="pieces a class for the probe; 0 is all"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of random initialisation, tests, intervals and folds"
    )
    common.as_json(parser, "summary")


def run(options: argparse.Namespace) -> None:
    """Writes tables, text and figures into `options.out`; prints the main table or JSON."""
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.commands.bars import count_bar
    from nt_jax.evaluation.elements.job import analyse, write
    from nt_jax.evaluation.elements.report import overview, summary
    from nt_jax.evaluation.elements.result import Settings
    from nt_jax.progress import Progress

    settings = Settings(
        contigs=tuple(common.flat(options.contig)),
        windows=options.windows,
        length=options.length,
        threshold=options.threshold,
        promoter=options.promoter,
        elements=options.elements,
        seed=options.seed,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with contextlib.ExitStack() as shown:

        def bar(text: str) -> Progress:
            # One phase at a time: the next one ends the bar of the last.
            shown.close()
            return shown.enter_context(count_bar(text))

        result = analyse(options.checkpoint, options.fasta, options.gff, settings, bar, say)
    written = write(result, options.out)
    print(json.dumps(summary(result), indent=2) if options.json else overview(result))
    say(f"written: {', '.join(map(str, written))}")
