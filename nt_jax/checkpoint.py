"""Checkpoints: the only file that imports orbax.

A workdir keeps `checkpoints/STEP/{params,rest,meta}`. `params` stands alone, so evaluation never
reads the moments. `meta` carries the experiment and a checksum of every array, computed on the
device from the bits that were saved (sharding does not change it) and verified at restore:
Orbax itself restores a flipped byte without a word. A directory without its commit marker is
never read.
"""

import contextlib
import itertools
import logging
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nt_jax.checksums import checksums, compare, host_checksums
from nt_jax.config import CheckpointConfig, Experiment, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.model.factory import build_model
from nt_jax.params_reader import read_to_device
from nt_jax.progress import Progress, phases, silent, watching
from nt_jax.step import TrainState

FOLDER = "checkpoints"
_SAVED_NAME = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")
# Orbax gathers a data file in memory before it writes it, and a chunk is encoded as a whole. A
# chunk is at most a layer, so that reading a layer reads little else.
_FILE_BYTES = 16 << 20
_CHUNK_BYTES = 16 << 20
_REMOVALS = 50
# Seconds to wait before each further attempt to save the last state of a run.
_PAUSES = (1.0, 5.0, 30.0)
_log = logging.getLogger("nt_jax.checkpoint")


class SaveFailedError(RuntimeError):
    """The last state of a run could not be written."""


def _verify(tree: Any, expected: dict[str, str], where: str) -> None:
    compare(checksums(tree), expected, where)


def _split(state: TrainState) -> tuple[Any, Any]:
    return state.params, {"step": state.step, "opt_state": state.opt_state}


class Checkpoints:
    """Saves and restores the train state of one run."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig):
        self._folder = (workdir / FOLDER).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_partial(self._folder)
        self._config = config
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(self._config.keep)]
        if self._config.keep_every:
            policies.append(ocp.checkpoint_managers.EveryNSteps(self._config.keep_every))
        return ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
            ),
        )

    def save(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        """Starts an asynchronous save; the state may be donated as soon as this returns.

        A save that fails, such as on a full disk, is reported and ends no run: the checkpoints
        before it stay, and the next save is tried. (Where several hosts save together they cannot
        go on alone, and the error is raised.)
        """
        self._guarded(self._manager.wait_until_finished)
        self._guarded(lambda: self._start(state, experiment, extra))

    def commit(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        """Returns when this very state is on disk; saves it again where that failed.

        Raises SaveFailedError after some attempts.
        """
        step, error = int(state.step), None
        for pause in (None, *_PAUSES):
            if pause is not None:
                time.sleep(pause)
                error = self._guarded(lambda: self._start(state, experiment, extra)) or error
            error = self._guarded(self._manager.wait_until_finished) or error
            if step in committed_steps(self._folder):
                return
        raise SaveFailedError(
            f"{self._folder / str(step)}: cannot be written ({error}); make room, then give the "
            f"same command again: it goes on from the last of {committed_steps(self._folder)}"
        )

    def _guarded(self, action: Callable[[], object]) -> str:
        """Does something that saves; returns what went wrong, which is also reported."""
        try:
            action()
        except Exception as error:
            if jax.process_count() > 1:
                raise
            reason = _first_line(error)
            _log.error("a checkpoint could not be saved: %s", reason)
            with contextlib.suppress(Exception):
                self._manager.close()
            _remove_partial(self._folder)
            self._manager = self._open()
            return reason
        return ""

    def _start(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        params, rest = _split(state)
        _require_room(self._folder, sum(x.nbytes for x in jax.tree.leaves(state)))
        step = int(state.step)
        meta = {
            "step": step,
            "experiment": to_dict(experiment),
            "checksums": {"params": checksums(params), "rest": checksums(rest)},
            **extra,
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                rest=ocp.args.StandardSave(rest),
                meta=ocp.args.JsonSave(meta),
            ),
        )

    def restore(self, abstract: TrainState) -> TrainState | None:
        """Newest committed state whose checksums hold, or None in a fresh workdir.

        `abstract` holds shapes, dtypes and shardings (any mesh). A damaged checkpoint is
        reported and the next older one is taken; InputError when all are damaged.
        """
        steps = committed_steps(self._folder)
        for step in reversed(steps):
            try:
                return self._restore(step, abstract)
            except InputError:
                raise
            except Exception as error:
                _log.error("checkpoint %s is damaged (%s)", self._folder / str(step), error)
        if steps:
            raise InputError(
                f"{self._folder}: all {len(steps)} checkpoints are damaged; "
                "restore the folder from a copy, or start again in an empty workdir"
            )
        return None

    def _restore(self, step: int, abstract: TrainState) -> TrainState:
        params, rest = _split(abstract)
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(params),
                rest=ocp.args.StandardRestore(rest),
                meta=ocp.args.JsonRestore(),
            ),
        )
        sums = read["meta"]["checksums"]
        where = str(self._folder / str(step))
        _verify(read["params"], sums["params"], where)
        _verify(read["rest"], sums["rest"], where)
        return TrainState(read["rest"]["step"], read["params"], read["rest"]["opt_state"])

    def drop_after(self, step: int) -> None:
        """Moves damaged checkpoints beyond the restored step aside: they will be written anew."""
        for newer in [s for s in committed_steps(self._folder) if s > step]:
            source = self._folder / str(newer)
            names = (f"{newer}.damaged{n or ''}" for n in itertools.count())
            target = next(path for name in names if not (path := self._folder / name).exists())
            source.rename(target)
            _log.error("checkpoint %s is kept as %s", source, target.name)
        self._manager.reload()

    def wait(self) -> None:
        """Blocks until the last save is committed, or has failed and is reported."""
        self._guarded(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits and releases threads."""
        self.wait()
        self._manager.close()


def _require_room(folder: pathlib.Path, needed: int) -> None:
    """Says it in one line where the many writers of a save would each fail."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder}: {free:,} bytes are free, {needed:,} are needed; make room")


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


def _remove_partial(folder: pathlib.Path) -> None:
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


def save_params(
    workdir: pathlib.Path,
    params: Any,
    experiment: Experiment,
    extra: Any,
    progress: Progress = silent,
) -> None:
    """Writes checkpoint 0 from host arrays that were made elsewhere; there are no moments.

    Memory beyond the parameters: about half a gigabyte. Arrays that are aligned to 64 bytes are
    not copied. `progress` gets (bytes done, bytes in all).
    """
    checking, writing = phases(progress, (1, 2))
    sums = host_checksums(params, progress=checking)
    rest = {"step": np.zeros((), np.int32)}
    meta = {
        "step": 0,
        "experiment": to_dict(experiment),
        "checksums": {"params": sums, "rest": checksums(rest)},
        **extra,
    }
    # Orbax copies NumPy arrays before it writes them, and reads JAX's in place.
    params = jax.tree.map(jax.device_put, params)
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    handlers = ocp.DefaultCheckpointHandlerRegistry()
    handlers.add("params", ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler())
    folder = (workdir / FOLDER).absolute()
    total = sum(x.nbytes for x in jax.tree.leaves(params))
    with (
        ocp.CheckpointManager(folder, options=options, handler_registry=handlers) as manager,
        watching(folder, total, writing),
    ):
        manager.save(
            0,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(
                    params,
                    save_args=jax.tree.map(_save_args, params),
                    ocdbt_target_data_file_size=_FILE_BYTES,
                ),
                rest=ocp.args.StandardSave(rest),
                meta=ocp.args.JsonSave(meta),
            ),
        )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _save_args(array: jax.Array) -> ocp.SaveArgs:
    """Chunks of a layer or a part of it; only matrices of layers have three axes."""
    return ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=(0,) if array.ndim == 3 else ())


def restore_params(
    workdir: str | pathlib.Path,
    step: int | None = None,
    sharding: Any = None,
    progress: Progress = silent,
) -> tuple[Any, int, Experiment]:
    """Reads the parameters of a committed checkpoint, verified.

    `sharding` maps the abstract parameters to a tree of shardings; the default places them on
    the first device, in the memory that they take and little more. `progress` gets (bytes done,
    bytes in all). Returns (params, step, experiment); raises InputError.
    """
    workdir = pathlib.Path(workdir)
    step = find_step(workdir, step)
    folder = (workdir / FOLDER / str(step)).absolute()
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            meta = reader.restore(folder / "meta")
        experiment = from_dict(Experiment, meta["experiment"], str(folder))
        model = build_model(experiment.model, experiment.tokenizer.make())
        abstract = jax.eval_shape(model.init, jax.random.key(0))
        sums = meta["checksums"]["params"]
        if sharding is None:
            return read_to_device(folder / "params", abstract, sums, progress), step, experiment
        target = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract,
            sharding(abstract),
        )
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            params = reader.restore(folder / "params", args=ocp.args.StandardRestore(target))
        _verify(params, sums, str(folder))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{folder}: damaged checkpoint ({_first_line(error)}); name another step"
        ) from error
    return params, step, experiment
