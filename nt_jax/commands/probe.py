"""`nt-jax probe`: probes on frozen embeddings, each beside its controls."""

import argparse
import pathlib

from nt_jax.commands import options as common


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    common.tasks(parser)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--layers", default="", help="comma-separated, 1-based; default: spread")
    parser.add_argument("--folds", type=int, default=10, help="folds where no test split is given")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and controls")
    parser.add_argument("--max-sequences", type=int, default=0, help="of each split; 0 is all")
    parser.add_argument(
        "--head", default="logistic", help="logistic|mlp|both (chosen by inner cross-validation)"
    )
    common.pooling(parser)
    parser.add_argument(
        "--follow", action="store_true",
        help="probe each checkpoint of the run as it is committed, until the run has ended",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Writes tables, figure and results into `options.out`."""
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.evaluation.follow import follow
    from nt_jax.evaluation.probe import probe

    if options.follow:
        common.end_on_sigterm()
    (follow if options.follow else probe)(
        options.checkpoint,
        common.flat(options.task),
        options.out,
        data_dirs=options.data_dir,
        layers=common.layers(options.layers),
        folds=options.folds,
        seed=options.seed,
        max_sequences=options.max_sequences,
        head=options.head,
        pooling=options.pooling,
    )
