"""`nt-jax <command>`: which command, exit codes, one-line errors."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from nt_jax import environment
from nt_jax.errors import InputError, nearest

FINISHED, FAILED, BAD_INPUT = 0, 1, 2
COMMANDS = {
    "data build": ("data_build", "Cut FASTA files into a dataset."),
    "data manifest": ("data_manifest", "Choose assemblies: write the manifest of a named set."),
    "data fetch": ("data_fetch", "Fetch the assemblies of a manifest, checked."),
    "data verify": ("data_verify", "Check a dataset: bytes, counts, leakage."),
    "data trace": ("data_trace", "Which windows fed a step of a run."),
    "pretrain": ("pretrain", "Train a masked language model; again = resume."),
    "plan": ("plan", "Memory, time and cost on a slice that is not there."),
    "evaluate": ("evaluate", "Masked loss, perplexity, accuracy of a checkpoint."),
    "probe": ("probe", "Probes on frozen embeddings, beside controls."),
    "tasks": ("tasks", "Labelled sets known by name, and which are here."),
    "embed": ("embed", "Embeddings as a file, with a picture."),
    "score": ("score", "Score variants: log-likelihood ratios and embedding distances."),
    "finetune": ("finetune", "Train a checkpoint on a task: IA3, LoRA, full, head."),
    "attention": ("attention", "Attention and masked accuracy by element, beside controls."),
    "import": ("import_", "Make a workdir of a published or foreign checkpoint."),
    "export": ("export", "Write a checkpoint in another layout, proven equal."),
    "verify": ("verify", "Same weights, same numbers? Any two checkpoints."),
    "report": ("report", "Write WORKDIR/report.html."),
    "study plan": ("study_plan", "Parameters, tokens, FLOPs, days and cost of every run."),
    "study run": ("study_run", "Runs and their evaluations, side by side; again = go on."),
    "study status": ("study_status", "State, step, loss and time left of every run."),
    "study report": ("study_report", "All runs as one tidy table and one page."),
    "launch local": ("launch_local", "Processes of this machine, restarted until done."),
    "launch tpu-vm": ("launch_tpu_vm", "A Cloud TPU slice: create, install, run, resume."),
    "launch tpu-vm-status": ("launch_tpu_vm_status", "State of a slice and of its run."),
    "launch tpu-vm-stop": ("launch_tpu_vm_stop", "Save and stop its run; --delete gives it back."),
    "launch slurm": ("launch_slurm", "One Slurm job a run, requeued until done."),
    "launch slurm-status": ("launch_slurm_status", "State of the jobs of workdirs."),
}
"""Name: (module of nt_jax.commands, what it does)."""
GROUPS = {
    "data": "genomes on disk -> windows on disk",
    "study": "grids of runs as data: what they cost, their losses, one table",
    "launch": "`nt-jax pretrain` on many devices; sweeps; --dry-run shows every command",
}
OVERRIDDEN = ("pretrain", "plan", "launch")
"""Commands that take overrides of the experiment and check what is left over themselves."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, "", False) or action.default == []:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are InputErrors with a suggestion."""

    def __init__(self, **keywords: Any):
        keywords.setdefault("formatter_class", _Help)
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
        options, rest = _parser(arguments).parse_known_args(arguments)
        if rest and options.command not in OVERRIDDEN:
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


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All commands, with the options of the one that `arguments` name."""
    parser = _Parser(prog="nt-jax", description="Pretrain and evaluate Nucleotide Transformers.")
    parser.add_argument("--version", action="version", version=_version())
    levels = {"": parser.add_subparsers(dest="command", required=True, metavar="COMMAND")}
    words = [word for word in arguments if not word.startswith("-")]
    for name, (module, text) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in levels:
            names = "|".join(n.split()[1] for n in COMMANDS if n.startswith(f"{group} "))
            nested = levels[""].add_parser(group, help=GROUPS[group], description=GROUPS[group])
            levels[group] = nested.add_subparsers(dest="step", required=True, metavar=names)
        sub = levels[group].add_parser(last, help=text, description=text)
        if words[: len(name.split())] == name.split():
            sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
            command = importlib.import_module(f"nt_jax.commands.{module}")
            sub.set_defaults(run=command.run, parser=sub)
            command.arguments(sub)
    return parser


def _version() -> str:
    from nt_jax import __version__

    return f"nt-jax {__version__}"


if __name__ == "__main__":
    sys.exit(main())
