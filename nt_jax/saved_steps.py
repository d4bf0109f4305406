"""Which checkpoints a workdir holds."""

import pathlib
import re
import shutil
import time

from nt_jax.errors import InputError

FOLDER = "checkpoints"
_SAVED_NAME = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")
_REMOVALS = 50


def committed_steps(folder: pathlib.Path) -> list[int]:
    """Steps under a `checkpoints` folder that carry their commit marker, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isdigit()
        and (entry / "_CHECKPOINT_METADATA").is_file()
        # The marker is written before the rename; the items after a crash may still be missing.
        and all((entry / item).is_dir() for item in ("params", "rest", "meta"))
    )


def find_step(workdir: pathlib.Path, step: int | None = None) -> int:
    """The given or the newest committed step; InputError names what there is."""
    steps = committed_steps(workdir / FOLDER)
    if not steps:
        raise InputError(f"{workdir}: no committed checkpoint in {workdir / FOLDER}")
    if step is None:
        return steps[-1]
    if step not in steps:
        raise InputError(f"{workdir}@{step}: no such checkpoint; there are {steps}")
    return step


def parse_checkpoint(name: str | pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """Splits `DIR[@STEP]`."""
    text = str(name)
    folder, at, step = text.rpartition("@")
    if at and step.isdigit():
        return pathlib.Path(folder), int(step)
    return pathlib.Path(text), None


def remove_partial(folder: pathlib.Path) -> None:
    """Deletes what a killed save left behind; it was never a checkpoint."""
    committed = {str(step) for step in committed_steps(folder)}
    for entry in folder.iterdir():
        if entry.name not in committed and _SAVED_NAME.fullmatch(entry.name) and entry.is_dir():
            # Of a save that has just failed, other arrays may still be on their way to the disk.
            for _ in range(_REMOVALS):
                shutil.rmtree(entry, ignore_errors=True)
                if not entry.exists():
                    break
                time.sleep(0.1)
            else:
                shutil.rmtree(entry)


def lacking_room(folder: pathlib.Path, needed: int) -> str:
    """Says it in one line where the many writers of a save would each fail; "" is room enough."""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return f"{folder}: {free:,} bytes are free, {needed:,} are needed; make room"
