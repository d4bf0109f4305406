"""`nt-jax import`: a published or foreign checkpoint becomes a workdir."""

import argparse
import pathlib
import sys


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "source",
        metavar="PATH|NAME",
        help="folder of any readable layout, a published model (nt_v2_50m_multispecies), or "
        "OWNER/REPOSITORY[@REVISION] of the hub",
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument(
        "--layer-norm-epsilon",
        type=float,
        default=None,
        metavar="E",
        help="in place of the source's; 1e-5 for the published PyTorch models, whose configs say "
        "1e-12",
    )
    parser.add_argument(
        "--unpickle", action="store_true",
        help="read pytree_ckpt.joblib with joblib.load, as the published loader does: code in the "
        "file will run, so only for files of trusted origin",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Writes the workdir and says what it holds."""
    from nt_jax import runtime
    from nt_jax.commands.bars import bytes_bar
    from nt_jax.interchange import formats
    from nt_jax.interchange.importer import import_checkpoint
    from nt_jax.interchange.unpickled import read_unpickled

    runtime.configure()
    read = read_unpickled if options.unpickle else formats.read
    with bytes_bar("reading") as progress:
        experiment = import_checkpoint(
            options.source, options.workdir, progress, options.layer_norm_epsilon, read
        )
    print(f"{options.workdir}: {experiment.name}, checkpoint 0", file=sys.stderr)
