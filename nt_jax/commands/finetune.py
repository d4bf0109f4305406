"""`nt-jax finetune`: IA3, LoRA, full fine-tuning or the head alone, beside controls."""

import argparse
import json
import pathlib

from nt_jax.commands import options as common

METHODS = ("ia3", "lora", "full", "head")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    parser.add_argument(
        "--task", required=True, metavar="NAME|PATH",
        help="registered name (`nt-jax tasks`), table, FASTA, task.json or folder of them",
    )  # fmt: skip
    common.data_dir(parser)
    parser.add_argument("--method", required=True, choices=METHODS, help="what is trained")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument(
        "--layer", type=int, default=None, help="layer that the head reads, 1-based; default: last"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=None, metavar="R",
        help="peak rate of Adam; default: ia3 3e-3, lora 3e-4, full 3e-5",
    )  # fmt: skip
    parser.add_argument("--rank", type=int, default=8, help="rank of LoRA")
    parser.add_argument("--epochs", type=int, default=20, help="most passes over the sequences")
    parser.add_argument("--batch", type=int, default=32, help="sequences of a step")
    parser.add_argument(
        "--patience", type=int, default=5,
        help="evaluations (one an epoch) without a lower validation loss before it ends",
    )  # fmt: skip
    parser.add_argument("--folds", type=int, default=10, help="folds where no test split is given")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--max-sequences", type=int, default=0, help="of each split; 0 is all")
    parser.add_argument(
        "--random-init", action="store_true",
        help="also fine-tune a random initialisation in the same way",
    )  # fmt: skip
    parser.add_argument(
        "--merge", action="store_true",
        help="also write OUT/model, a workdir with the adapters merged in (full always does)",
    )  # fmt: skip
    parser.add_argument(
        "--mesh",
        default="-1x1x1",
        metavar="DATAxFSDPxTENSOR",
        help="devices; -1: all that are left",
    )
    common.as_json(parser)


def run(options: argparse.Namespace) -> int | None:
    """Trains what is missing, then prints the table."""
    from nt_jax import memory, runtime

    memory.keep()
    runtime.configure()
    from nt_jax.config import MeshConfig
    from nt_jax.errors import InputError
    from nt_jax.evaluation.finetune.report import format_result
    from nt_jax.evaluation.finetune.run import finetune

    try:
        data, fsdp, tensor = map(int, options.mesh.split("x"))
    except ValueError:
        raise InputError(f"--mesh {options.mesh!r}: three numbers, as in 8x1x1") from None
    result = finetune(
        options.checkpoint,
        options.task,
        options.out,
        method=options.method,
        layer=options.layer,
        learning_rate=options.learning_rate,
        rank=options.rank,
        epochs=options.epochs,
        batch=options.batch,
        patience=options.patience,
        folds=options.folds,
        seed=options.seed,
        max_sequences=options.max_sequences,
        random_init=options.random_init,
        merge=options.merge,
        data_dirs=options.data_dir,
        mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor),
    )
    if result is None:
        return common.PREEMPTED
    print(json.dumps(result, indent=1) if options.json else format_result(result))
    return None
