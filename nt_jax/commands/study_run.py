"""`nt-jax study run`: every run of a study and its evaluations; again = go on."""

import argparse
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nt_jax.commands import launching, studying
from nt_jax.commands import options as common
from nt_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from nt_jax.studies.folder import Folder
    from nt_jax.studies.grid import Study, StudyRun


_LAUNCHERS = ("local", "slurm", "tpu-vm")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    studying.study(parser)
    studying.out(parser)
    studying.only(parser)
    parser.add_argument(
        "--data", action="append", nargs="+", default=[], metavar="SOURCE=DIR",
        help="where a dataset is (`nt-jax data build`); kept in DIR/study.json for the next time",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=launching.positive, default=1, metavar="N", help="runs at a time"
    )
    parser.add_argument(
        "--max-restarts", type=launching.from_zero, default=3, metavar="N",
        help="restarts in a row without a new checkpoint before a run is given up",
    )  # fmt: skip
    parser.add_argument(
        "--evaluate-only", action="store_true",
        help="train nothing: evaluate what is trained (here, or by `nt-jax launch` elsewhere)",
    )  # fmt: skip
    parser.add_argument(
        "--launcher", default="", metavar="WORDS",
        help="train through `nt-jax launch WORDS`, in quotes: 'slurm --nodes 4 --gpus-per-node 8', "
        "'tpu-vm --name dna{slot} --zone us-west4-a --topology v5e-16'; {slot} counts --jobs",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the commands; run nothing")
    common.data_dir(parser)


def run(options: argparse.Namespace) -> int:
    """Runs them; the state of all is printed on standard output at the end."""
    common.end_on_sigterm()  # before the processes are there is nothing to save
    from nt_jax.files import owning
    from nt_jax.studies import declared, status
    from nt_jax.studies.find import choose, find_study
    from nt_jax.studies.folder import Folder
    from nt_jax.studies.run import Settings, carry_out, exit_code, script, where

    study = find_study(options.study)
    runs = choose(study, common.flat(options.only))
    named = _data(common.flat(options.data), study.sources())
    settings = Settings(
        options.jobs,
        options.max_restarts,
        not options.evaluate_only,
        tuple(folder.absolute() for folder in options.data_dir),
        _launcher(options.launcher),
    )
    # What is launched may start in another folder.
    root = options.out.absolute() if settings.launcher else options.out
    folder = Folder(root)
    # All of this again once the folder is locked; a folder that is refused stays as it was.
    declared.admit(study, root)
    data = where(study, runs, declared.places(study, root, named))
    if options.dry_run:
        print(script(runs, folder, data, settings))
        return 0
    root.mkdir(parents=True, exist_ok=True)
    with owning(root, "another `nt-jax study run` is at work here; see `nt-jax study status`"):
        known = _fingerprints(declared.places(study, root, named))
        data = where(study, runs, declared.claim(study, root, named, known))
        only = set(common.flat(options.only))
        ended = carry_out(
            runs, folder, data, settings,
            lambda held_out: foretell(study, folder, held_out, settings.train, only),
        )  # fmt: skip
    print(status.table([status.progress(one, folder) for one in runs]))
    return exit_code(ended)


def foretell(
    study: "Study", folder: "Folder", held_out: "Sequence[StudyRun]", train: bool, named: set[str]
) -> "Sequence[StudyRun]":
    """Held-out runs that may begin; what the others predict of them is written down before.

    Those that have begun go on. The others wait until every run of their law is trained; where
    some of these have failed, until they are named.
    """
    from nt_jax.launch.shell import say
    from nt_jax.studies.families import families, write_down
    from nt_jax.studies.table import collect

    begun = {
        run.name
        for run in study.runs
        if run.held_out and (folder.workdir(run).exists() or folder.launched(run).exists())
    }
    if begun.issuperset(run.name for run in held_out):
        return held_out
    found = collect(study, folder.root)
    waiting: set[str] = set()
    for family in families(found):
        fresh = {str(row["run"]) for row in family.held_out} - begun
        failed = [name for name in family.open if folder.failed(study.run(name)).exists()]
        if not (fresh and family.open) or (len(failed) == len(family.open) and fresh <= named):
            continue
        waiting |= fresh
        if train:
            way = "; --only with their names begins them all the same" if failed else ""
            say(
                f"{', '.join(sorted(fresh))}: held out, and not trained yet of the runs that "
                f"predict: {', '.join(family.open)}{way}"
            )
    for line in write_down(found, folder.root, begun | waiting):
        say(line)
    return [run for run in held_out if not train or run.name not in waiting]


def _launcher(text: str) -> tuple[str, ...]:
    """Its words, checked: a launcher is named first."""
    words = tuple(shlex.split(text))
    if text and (not words or words[0] not in _LAUNCHERS):
        raise InputError(f"--launcher {text!r}: begins with one of {', '.join(_LAUNCHERS)}")
    return words


def _fingerprints(places: "Mapping[str, str]") -> dict[str, str]:
    """Of the datasets that are there; `pretrain` says what is wrong with the others."""
    from data_pipelines.datacard import local_folder, read_datacard

    folders = {source: pathlib.Path(path) for source, path in places.items() if "://" not in path}
    return {
        source: read_datacard(local_folder(path))["fingerprint"]
        for source, path in folders.items()
        if path.is_dir()
    }


def _data(words: list[str], sources: tuple[str, ...]) -> dict[str, str]:
    """`SOURCE=DIR ...`, checked: the folders are datasets."""
    from data_pipelines.datacard import local_folder, read_datacard

    found: dict[str, str] = {}
    for word in words:
        source, equals, folder = word.partition("=")
        if not (source and equals and folder):
            raise InputError(f"--data {word}: needs SOURCE=DIR; sources: {', '.join(sources)}")
        if source not in sources:
            raise InputError(
                f"--data {word}: no source {source!r}{nearest(source, sources)}; this study has "
                f"{', '.join(sources)}"
            )
        if source in found:
            raise InputError(f"--data {word}: {source} is given twice")
        path: pathlib.Path = local_folder(folder)
        read_datacard(path)
        found[source] = str(path)
    return found
