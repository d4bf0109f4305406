"""`nt-jax export`: a checkpoint in another layout, proven equal."""

import argparse
import pathlib
import sys

from nt_jax.commands import options as common
from nt_jax.errors import InputError, nearest

DTYPES = ("float32", "bfloat16")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    parser.add_argument(
        "--format", required=True, metavar="LAYOUT", help="hf|safetensors|onnx|stablehlo|flax|nt"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights")
    common.as_json(parser, "certificate")


def run(options: argparse.Namespace) -> int:
    """Writes the folder; 1 where the written files do not give the same numbers."""
    from nt_jax import runtime
    from nt_jax.commands.bars import bytes_bar
    from nt_jax.interchange.exporter import WRITERS, NotEqualError, export_checkpoint

    if options.format not in WRITERS:
        near = nearest(options.format, WRITERS)
        raise InputError(f"--format {options.format}{near}; known: {', '.join(WRITERS)}")
    runtime.configure()
    with bytes_bar("writing") as progress:
        try:
            certificate = export_checkpoint(
                options.checkpoint, options.format, options.out, options.dtype, progress
            )
        except NotEqualError as error:
            print(error, file=sys.stderr)
            return 1
    print(certificate.json() if options.json else certificate.table(), end="")
    return 0
