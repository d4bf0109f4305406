"""Checkpoints: the only file that imports orbax.

A workdir keeps `checkpoints/STEP/{params,rest,meta}`. `params` stands alone, so evaluation never
reads the moments. `meta` carries the experiment and a checksum of every array, computed on the
device from the bits that were saved (sharding does not change it) and verified at restore:
Orbax itself restores a flipped byte without a word. A directory without its commit marker is
never read. On several hosts, which share the folder, each writes and reads its part of the arrays;
which checkpoints there are is what process 0 sees, and it alone renames and deletes.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from nt_jax import distributed
from nt_jax.checksums import CorruptedError, checksums, compare, host_checksums
from nt_jax.config import CheckpointConfig, Experiment, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.model.factory import build_model
from nt_jax.params_reader import check_index, read_to_device
from nt_jax.progress import Progress, phases, silent, watching
from nt_jax.saved_steps import (
    FOLDER,
    committed_steps,
    find_step,
    lacking_room,
    parse_checkpoint,
    remove_partial,
)
from nt_jax.step import TrainState

__all__ = [
    "FOLDER", "Checkpoints", "SaveFailedError", "committed_steps", "find_step", "parse_checkpoint",
    "restore_params", "save_params",
]  # fmt: skip

# Orbax gathers a data file in memory before it writes it, and a chunk is encoded as a whole. A
# chunk is at most a layer, so that reading a layer reads little else.
_FILE_BYTES = 16 << 20
_CHUNK_BYTES = 16 << 20
# Seconds to wait before each further attempt to save the last state of a run.
_PAUSES = (1.0, 5.0, 30.0)
_log = logging.getLogger("nt_jax.checkpoint")


class SaveFailedError(RuntimeError):
    """The last state of a run could not be written."""


class _ElsewhereError(RuntimeError):
    """Another host could not write its part."""


def _verify(tree: Any, expected: dict[str, str], where: str) -> None:
    compare(checksums(tree), expected, where)


def _digest(meta: dict[str, Any]) -> str:
    """SHA-256 of what `meta` says: a flipped byte could make another model of the same shapes."""
    said = {key: value for key, value in meta.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _verified(meta: dict[str, Any], where: str) -> dict[str, Any]:
    """`meta` itself; CorruptedError when it is not what was saved (older ones do not say)."""
    if meta.get("digest", _digest(meta)) != _digest(meta):
        raise CorruptedError(f"{where}: meta differs from what was saved")
    return meta


def _split(state: TrainState) -> tuple[Any, Any]:
    return state.params, {"step": state.step, "opt_state": state.opt_state}


class Checkpoints:
    """Saves and restores the train state of one run."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig):
        self._folder = (workdir / FOLDER).absolute()
        self._config, self._opened = config, 0
        self._clear()
        self._manager = self._open()

    def _clear(self) -> None:
        """Removes what is no checkpoint."""
        if distributed.leads():
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_partial(self._folder)
        distributed.barrier("unfinished checkpoints are removed")

    def _open(self) -> ocp.CheckpointManager:
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(self._config.keep)]
        if self._config.keep_every:
            policies.append(ocp.checkpoint_managers.EveryNSteps(self._config.keep_every))
        self._opened += 1
        several: dict[str, Any] = {}
        if distributed.count() > 1:
            # Named processes make Orbax wait for hosts, with a bound, and not for their devices.
            # After a failed save hosts stand at different barriers: a manager brings its own.
            several["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                active_processes=set(range(distributed.count())),
                barrier_sync_key_prefix=f"nt-jax-{self._opened}",
            )
            several["async_options"] = ocp.options.AsyncOptions(
                barrier_sync_fn=_in_step(f"checkpoint writers {self._opened}")
            )
        return ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                create=False,
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
                **several,
            ),
        )

    def save(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        """Starts an asynchronous save; the state may be donated as soon as this returns.

        A save that fails, such as on a full disk, is reported and ends no run: the checkpoints
        before it stay, and the next save is tried.
        """
        step = int(state.step)
        self._guarded(f"end of the save before step {step}", self._manager.wait_until_finished)
        self._guarded(f"save of step {step}", lambda: self._start(state, experiment, extra))

    def commit(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        """Returns when this very state is on disk; saves it again where that failed.

        Raises SaveFailedError after some attempts.
        """
        step, error = int(state.step), ""
        for pause in (None, *_PAUSES):
            if pause is not None:
                time.sleep(pause)
                again = f"another save of step {step}"
                error = self._guarded(again, lambda: self._start(state, experiment, extra)) or error
            error = (
                self._guarded(f"commit of step {step}", self._manager.wait_until_finished) or error
            )
            if step in self._committed():
                return
        raise SaveFailedError(
            f"{self._folder / str(step)}: cannot be written ({error}); make room, then give the "
            f"same command again: it goes on from the last of {self._committed()}"
        )

    def _committed(self) -> list[int]:
        """Steps that process 0 sees: another host may see a new folder a little later."""
        found = distributed.from_leader(
            "committed checkpoints", lambda: json.dumps(committed_steps(self._folder))
        )
        return json.loads(found)

    def _guarded(self, name: str, action: Callable[[], object]) -> str:
        """Does something that saves; returns what went wrong anywhere, which is reported."""
        try:
            action()
            reason = ""
        except Exception as error:
            if distributed.failed():
                raise
            reason = _first_line(error)
        reasons = [other for other in distributed.gather(name, reason) if other]
        if not reasons:
            return ""
        reason = next((other for other in reasons if other != str(_ElsewhereError())), reasons[0])
        _log.error("a checkpoint could not be saved: %s", reason)
        with contextlib.suppress(Exception):
            self._manager.close()
        self._clear()
        self._manager = self._open()
        return reason

    def _start(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        params, rest = _split(state)
        step = int(state.step)
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        # All or none: a host that does not save would be waited for by those that do.
        lacking = distributed.from_leader(
            f"room for step {step}", lambda: lacking_room(self._folder, needed)
        )
        if lacking:
            raise OSError(lacking)
        meta = {
            "step": step,
            "experiment": to_dict(experiment),
            "checksums": {"params": checksums(params), "rest": checksums(rest)},
            **extra,
        }
        meta["digest"] = _digest(meta)
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
        steps = self._committed()
        for step in reversed(steps):
            where, reason = self._folder / str(step), ""
            try:
                params, rest, sums = _read(where, *_split(abstract))
            except InputError:
                raise
            except Exception as error:
                reason = _first_line(error)
            # All take the same step: what one host cannot read is damaged for all of them.
            damage = [one for one in distributed.gather(f"checkpoint {step}", reason) if one]
            if not damage:
                try:
                    _verify(params, sums["params"], str(where))
                    _verify(rest, sums["rest"], str(where))
                    return TrainState(rest["step"], params, rest["opt_state"])
                except CorruptedError as error:
                    damage = [_first_line(error)]
            _log.error("checkpoint %s is damaged (%s)", where, damage[0])
        if steps:
            raise InputError(
                f"{self._folder}: all {len(steps)} checkpoints are damaged; "
                "restore the folder from a copy, or start again in an empty workdir"
            )
        return None

    def drop_after(self, step: int) -> None:
        """Moves damaged checkpoints beyond the restored step aside: they will be written anew."""
        for newer in [s for s in committed_steps(self._folder) if s > step and distributed.leads()]:
            source = self._folder / str(newer)
            names = (f"{newer}.damaged{n or ''}" for n in itertools.count())
            target = next(path for name in names if not (path := self._folder / name).exists())
            source.rename(target)
            _log.error("checkpoint %s is kept as %s", source, target.name)
        distributed.barrier("damaged checkpoints are moved aside")
        self._manager.reload()

    def wait(self) -> None:
        """Blocks until the last save is committed, or has failed and is reported."""
        self._guarded("last save", self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits and releases threads; a run that has failed on some host waits for none."""
        if distributed.failed():
            return
        self.wait()
        self._manager.close()


def _in_step(name: str) -> Callable[..., None]:
    """What Orbax's writers wait at: a barrier that a host which failed does not keep others from.

    Such a host leaves barriers out and comes to a later one. All see then that they do not stand
    at the same one, and the save has failed for all of them.
    """
    broken = threading.Event()

    def wait(*, key: str, timeout_ms: int) -> None:
        if broken.is_set() or len(set(distributed.gather(name, key))) > 1:
            broken.set()
            raise _ElsewhereError()

    return wait


def _read(folder: pathlib.Path, params: Any, rest: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Both trees and their checksums. Each host reads its shards and waits for no other."""
    for part in ("params", "rest"):
        check_index(folder / part)
    with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
        params = reader.restore(
            epath.Path(folder / "params"), args=ocp.args.StandardRestore(params)
        )
        rest = reader.restore(epath.Path(folder / "rest"), args=ocp.args.StandardRestore(rest))
    with contextlib.closing(ocp.JsonCheckpointHandler()) as reader:
        meta = _verified(reader.restore(epath.Path(folder / "meta")), str(folder))
    return params, rest, meta["checksums"]


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
    meta["digest"] = _digest(meta)
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
            meta = _verified(reader.restore(folder / "meta"), str(folder))
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
