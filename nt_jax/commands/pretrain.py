"""`nt-jax pretrain`: train, and go on where a run was stopped."""

import argparse
import pathlib
import sys

from nt_jax.commands.options import end_on_sigterm
from nt_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; the overrides of the config are whatever is left."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "experiment", metavar="EXPERIMENT", help="registered name, or a .py or .json file"
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--data", default=None, help="dataset folder (short for --data.path)")
    parser.add_argument("--init-from", default=None, metavar="DIR[@STEP]", help="weights to start")
    parser.epilog = override_help()


def run(options: argparse.Namespace) -> int:
    """Trains, then writes the report; 75 when a signal stopped it."""
    from nt_jax import distributed

    end_on_sigterm()  # before the loop listens for it there is nothing to save
    with distributed.session():
        return _train(options)


def _train(options: argparse.Namespace) -> int:
    from nt_jax import registry
    from nt_jax.overrides import apply_overrides

    overrides = list(options.rest)
    if options.data is not None:
        overrides += ["--data.path", options.data]
    experiment = apply_overrides(registry.find_experiment(options.experiment), overrides)
    if not experiment.data.path:
        raise InputError(f"{experiment.name}: which data? Give --data DIR (`nt-jax data build`)")

    from nt_jax import distributed, memory, runtime, train

    memory.keep()
    runtime.configure()
    code = train.pretrain(experiment, options.workdir, options.init_from)
    if code == train.FINISHED and distributed.leads():
        from nt_jax.report.page import write_report

        print(f"done; curves in {write_report(options.workdir)}", file=sys.stderr)
    return code


def override_help() -> str:
    """All overrides with their present values, where help is asked for."""
    if not {"-h", "--help"} & set(sys.argv):
        return ""
    from nt_jax import registry
    from nt_jax.config import Experiment
    from nt_jax.overrides import table

    files = (".py", ".json")
    named = [word for word in sys.argv[1:] if word in registry.names() or word.endswith(files)]
    experiment = registry.find_experiment(named[0]) if named else Experiment(name="defaults")
    return (
        f"experiments: {', '.join(registry.names())}\n\n"
        f"overrides (value in {experiment.name}; units in nt_jax/config.py):\n{table(experiment)}"
    )
