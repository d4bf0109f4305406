"""`nt-jax <command>`: argument parsing, exit codes, one-line errors. Rooms are imported late."""

import argparse
import json
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from nt_jax import environment
from nt_jax.errors import InputError, nearest

FINISHED, FAILED, BAD_INPUT, PREEMPTED = 0, 1, 2, 75
_DTYPES = ("float32", "bfloat16")


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are InputErrors with a suggestion."""

    def __init__(self, **keywords: Any):
        keywords.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        text = message
        if "unrecognized arguments: " in message:
            text = self.unknown(message.partition(": ")[2].split()[0])
        elif "invalid choice: " in message:
            given = message.partition("invalid choice: ")[2].partition(" ")[0].strip("'")
            choices = message.rpartition("choose from ")[2].rstrip(")").replace("'", "")
            known = choices.split(", ")
            text = f"unknown {given!r}{nearest(given, known)}; known: {', '.join(known)}"
        raise InputError(f"{self.prog.removeprefix('nt-jax').strip()}: {text}".removeprefix(": "))

    def unknown(self, name: str) -> str:
        flags = [flag for action in self._actions for flag in action.option_strings]
        return f"unknown option {name!r}{nearest(name, flags)}; `{self.prog} --help` lists all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (0 done, 2 bad input, 75 stopped and saved, 1 else)."""
    if arguments is None:
        environment.huge_pages()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    environment.quiet()
    try:
        options, rest = _parser().parse_known_args(arguments)
        if rest and options.command != "pretrain":
            raise InputError(options.parser.unknown(rest[0]))
        options.rest = rest
        return options.run(options) or FINISHED
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"nt-jax: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("nt-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"nt-jax: {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nt-jax", description="Pretrain and evaluate Nucleotide Transformers.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, parent: Any = commands) -> argparse.ArgumentParser:
        sub = parent.add_parser(name, help=text, description=text)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run, parser=sub)
        return sub

    data = commands.add_parser("data", help="genomes on disk -> windows on disk")
    steps = data.add_subparsers(dest="data_command", required=True, metavar="build|verify|trace")
    _build_arguments(command("build", _data_build, "Cut FASTA files into a dataset.", steps))
    verify = command("verify", _data_verify, "Check a dataset: bytes, counts, leakage.", steps)
    verify.add_argument("dir", type=pathlib.Path, metavar="DIR", help="dataset folder")
    verify.add_argument("--json", action="store_true", help="machine-readable result")
    trace = command("trace", _data_trace, "Which windows fed a step of a run.", steps)
    trace.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR", help="folder of the run")
    trace.add_argument("--step", type=int, required=True, help="optimizer step, from 1")
    trace.add_argument("--row", type=int, default=None, help="one sequence of the batch, from 0")
    trace.add_argument("--json", action="store_true", help="one JSON object a line")

    train = command("pretrain", _pretrain, "Train a masked language model; again = resume.")
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.add_argument("experiment", metavar="EXPERIMENT", help="registered name or .py file")
    train.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")
    train.add_argument("--data", default=None, help="dataset folder (short for --data.path)")
    train.add_argument("--init-from", default=None, metavar="DIR[@STEP]", help="weights to start")
    train.epilog = _override_help()

    evaluate = command("evaluate", _evaluate, "Masked loss, perplexity, accuracy of a checkpoint.")
    evaluate.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="workdir")
    where = evaluate.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", default=None, metavar="DIR", help="dataset folder")
    where.add_argument("--fasta", default=None, metavar="F", help="FASTA, plain or compressed")
    evaluate.add_argument("--split", default="validation", help="split of the dataset")
    evaluate.add_argument("--windows", type=int, default=0, help="windows, evenly; 0 is all")
    evaluate.add_argument("--batch", type=int, default=16, help="windows at a time")
    evaluate.add_argument("--length", type=int, default=0, help="tokens; 0 is as trained")
    evaluate.add_argument("--out", type=pathlib.Path, default=None, help="write the JSON here too")
    evaluate.add_argument("--json", action="store_true", help="machine-readable result")

    probe = command("probe", _probe, "Linear probes on frozen embeddings, beside controls.")
    probe.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="workdir")
    probe.add_argument(
        "--task", required=True, action="append", nargs="+", metavar="PATH",
        help="CSV/TSV with sequence,label; folder with train/dev/test.csv; NT .fna",
    )  # fmt: skip
    probe.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    probe.add_argument("--layers", default="", help="comma-separated, 1-based; default: spread")
    probe.add_argument("--folds", type=int, default=10, help="folds where no test split is given")
    probe.add_argument("--seed", type=int, default=0, help="seed of folds and controls")
    probe.add_argument("--max-sequences", type=int, default=0, help="of each split; 0 is all")
    probe.add_argument(
        "--follow", action="store_true",
        help="probe each checkpoint of the run as it is committed, until the run has ended",
    )  # fmt: skip

    bring = command("import", _import, "Make a workdir of a published or foreign checkpoint.")
    bring.add_argument(
        "source",
        metavar="PATH|NAME",
        help="folder of any readable layout, a published model (nt_v2_50m_multispecies), or "
        "OWNER/REPOSITORY[@REVISION] of the hub",
    )
    bring.add_argument("--workdir", type=pathlib.Path, required=True, help="folder to write")
    bring.add_argument(
        "--layer-norm-epsilon",
        type=float,
        default=None,
        metavar="E",
        help="in place of the source's; 1e-5 for the published PyTorch models, whose configs say "
        "1e-12",
    )
    bring.add_argument(
        "--unpickle", action="store_true",
        help="read pytree_ckpt.joblib with joblib.load, as the published loader does: code in the "
        "file will run, so only for files of trusted origin",
    )  # fmt: skip

    export = command("export", _export, "Write a checkpoint in another layout, proven equal.")
    export.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="workdir")
    export.add_argument(
        "--format", required=True, metavar="LAYOUT", help="hf|safetensors|onnx|stablehlo|flax|nt"
    )
    export.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    export.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the weights")
    export.add_argument("--json", action="store_true", help="machine-readable certificate")

    same = command("verify", _verify, "Same weights, same numbers? Any two checkpoints.")
    for side in ("left", "right"):
        same.add_argument(side, metavar="DIR[@STEP]", help="workdir or folder of any layout")
    same.add_argument(
        "--length",
        type=int,
        default=None,
        help="tokens a row at most",
    )
    same.add_argument("--dtype", choices=_DTYPES, default="float32", help="sets the tolerance")
    same.add_argument("--tolerance", type=float, default=None, help="of the largest value")
    same.add_argument("--json", action="store_true", help="machine-readable certificate")

    report = command("report", _report, "Write WORKDIR/report.html.")
    report.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR", help="folder of the run")
    return parser


def _build_arguments(build: argparse.ArgumentParser) -> None:
    build.add_argument("source", choices=["fasta"], metavar="SOURCE", help="fasta")
    build.add_argument("--out", type=pathlib.Path, required=True, help="dataset folder to write")
    build.add_argument("--fasta", action="append", nargs="+", default=[], help="FASTA file(s)")
    build.add_argument(
        "--recipe", default="hf6200",
        help="paper6100|hf6200|paper12k|hf12k|window=BASES,stride=BASES,jitter=BASES",
    )  # fmt: skip
    for split in ("validation", "test"):
        build.add_argument(
            f"--{split}", action="append", nargs="+", default=[], metavar="CONTIG",
            help=f"contigs of the {split} split; default: seeded blocks",
        )  # fmt: skip
    build.add_argument("--seed", type=int, default=0, help="seed of the block-wise split")
    build.add_argument("--workers", type=int, default=1, help="processes")
    build.add_argument(
        "--kind", choices=["real", "simulated"], default="real", help="named in the data card"
    )


def _version() -> str:
    from nt_jax import __version__

    return f"nt-jax {__version__}"


def _override_help() -> str:
    if "pretrain" not in sys.argv or not {"-h", "--help"} & set(sys.argv):
        return ""
    from nt_jax import registry
    from nt_jax.config import Experiment
    from nt_jax.overrides import table

    named = [word for word in sys.argv if word in registry.names() or word.endswith(".py")]
    experiment = registry.find_experiment(named[0]) if named else Experiment(name="defaults")
    return (
        f"experiments: {', '.join(registry.names())}\n\n"
        f"overrides (value in {experiment.name}; units in nt_jax/config.py):\n{table(experiment)}"
    )


def _flat(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _data_build(options: argparse.Namespace) -> None:
    from nt_jax.dataset_commands import build

    build(options, _flat(options.fasta), _flat(options.validation), _flat(options.test))


def _data_verify(options: argparse.Namespace) -> int:
    from nt_jax.dataset_commands import verify

    return verify(options.dir, options.json)


def _data_trace(options: argparse.Namespace) -> None:
    from nt_jax.dataset_commands import trace

    trace(options.workdir, options.step, options.row, options.json)


def _pretrain(options: argparse.Namespace) -> int:
    from nt_jax import registry
    from nt_jax.overrides import apply_overrides

    overrides = list(options.rest)
    if options.data is not None:
        overrides += ["--data.path", options.data]
    experiment = apply_overrides(registry.find_experiment(options.experiment), overrides)
    if not experiment.data.path:
        raise InputError(f"{experiment.name}: which data? Give --data DIR (`nt-jax data build`)")

    from nt_jax import runtime, train

    runtime.configure()
    code = train.pretrain(experiment, options.workdir, options.init_from)
    if code == FINISHED:
        from nt_jax.report.page import write_report

        print(f"done; curves in {write_report(options.workdir)}", file=sys.stderr)
    return code


def _evaluate(options: argparse.Namespace) -> None:
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.evaluation.masked import evaluate, format_result

    result = evaluate(
        options.checkpoint,
        data_dir=options.data,
        fasta=options.fasta,
        split=options.split,
        windows=options.windows,
        batch=options.batch,
        length=options.length,
    )
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text if options.json else format_result(result))


def _probe(options: argparse.Namespace) -> None:
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.evaluation.follow import follow
    from nt_jax.evaluation.probe import probe

    try:
        layers = [int(layer) for layer in options.layers.split(",") if layer] or None
    except ValueError:
        raise InputError(f"--layers {options.layers!r}: comma-separated layer numbers") from None
    if options.follow:
        # What is done is on disk, so there is nothing to save.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(PREEMPTED))
    (follow if options.follow else probe)(
        options.checkpoint,
        _flat(options.task),
        options.out,
        layers=layers,
        folds=options.folds,
        seed=options.seed,
        max_sequences=options.max_sequences,
    )


def _import(options: argparse.Namespace) -> None:
    from nt_jax import interchange_commands, runtime

    runtime.configure()
    interchange_commands.import_(
        options.source, options.workdir, options.layer_norm_epsilon, options.unpickle
    )


def _export(options: argparse.Namespace) -> int:
    from nt_jax import interchange_commands, runtime

    if options.format not in interchange_commands.LAYOUTS:
        known = ", ".join(interchange_commands.LAYOUTS)
        near = nearest(options.format, interchange_commands.LAYOUTS)
        raise InputError(f"--format {options.format}{near}; known: {known}")
    runtime.configure()
    return interchange_commands.export(
        options.checkpoint, options.format, options.out, options.dtype, options.json
    )


def _verify(options: argparse.Namespace) -> int:
    from nt_jax import interchange_commands, runtime

    runtime.configure()
    return interchange_commands.verify(
        options.left,
        options.right,
        options.length,
        options.dtype,
        options.tolerance,
        options.json,
    )


def _report(options: argparse.Namespace) -> None:
    from nt_jax.report.page import write_report

    print(write_report(options.workdir))


if __name__ == "__main__":
    sys.exit(main())
