"""Checkpoints: the only file that imports orbax.

A workdir keeps `checkpoints/STEP/{params,rest,meta}`. `params` stands alone, so evaluation never
reads the moments. `meta` carries the experiment and a checksum of every array, computed on the
device from the bits that were saved (sharding does not change it) and verified at restore:
Orbax itself restores a flipped byte without a word. A directory without its commit marker is
never read.
"""

import collections
import itertools
import logging
import math
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from nt_jax.checksums import checksums, host_checksums
from nt_jax.config import CheckpointConfig, Experiment, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.memory import aligned_empty
from nt_jax.model.factory import build_model
from nt_jax.progress import Progress, phases, silent, watching
from nt_jax.step import TrainState

FOLDER = "checkpoints"
_SAVED_NAME = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")
# Orbax gathers a data file in memory before it writes it, and a chunk is encoded as a whole. A
# chunk is at most a layer, so that reading a layer reads little else.
_FILE_BYTES = 16 << 20
_CHUNK_BYTES = 16 << 20
# Slabs of chunks that are read at the same time.
_IN_FLIGHT = 2
_log = logging.getLogger("nt_jax.checkpoint")


class CorruptedError(RuntimeError):
    """A checkpoint whose arrays are not the ones that were saved."""


def _verify(tree: Any, expected: dict[str, str], where: str) -> None:
    _compare(checksums(tree), expected, where)


def _compare(found: dict[str, str], expected: dict[str, str], where: str) -> None:
    wrong = [path for path, value in found.items() if expected.get(path) != value]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CorruptedError(f"{where}: array {wrong[0]}{more} differs from what was saved")


def _split(state: TrainState) -> tuple[Any, Any]:
    return state.params, {"step": state.step, "opt_state": state.opt_state}


class Checkpoints:
    """Saves and restores the train state of one run."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig):
        self._folder = (workdir / FOLDER).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_partial(self._folder)
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(config.keep)]
        if config.keep_every:
            policies.append(ocp.checkpoint_managers.EveryNSteps(config.keep_every))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
            ),
        )

    def save(self, state: TrainState, experiment: Experiment, extra: dict[str, Any]) -> None:
        """Starts an asynchronous save; the state may be donated as soon as this returns."""
        params, rest = _split(state)
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
        """Blocks until the last save is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases threads."""
        self._manager.close()


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
            return _read_to_device(folder / "params", abstract, sums, progress), step, experiment
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
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: damaged checkpoint ({first}); name another step") from error
    return params, step, experiment


def _read_to_device(
    folder: pathlib.Path, abstract: Any, expected: dict[str, str], progress: Progress
) -> Any:
    """Parameters on the first device, one after the other, each checked on its way.

    Orbax reads all chunks of an array at once and copies the array once more; here a few chunks
    go straight to their place, and a CPU device takes the place over.
    """
    device = jax.local_devices()[0]
    context = ts.Context({"cache_pool#nodes": {"total_bytes_limit": 100_000_000}})
    total, done = sum(map(_nbytes, jax.tree.leaves(abstract))), 0
    params: dict[str, dict[str, jax.Array]] = {}
    for module, arrays in abstract.items():
        params[module] = {}
        for name, array in arrays.items():
            path = f"{module}/{name}"
            report = _of_whole(progress, done, total)
            reading, checking = phases(report, (1, 1))
            found = _read(folder, f"{module}.{name}", array, context, reading)
            sums = host_checksums({module: {name: found}}, progress=checking)
            _compare(sums, {path: expected.get(path, "")}, str(folder.parent))
            params[module][name] = jax.device_put(found, device)
            done += found.nbytes
    return params


def _of_whole(progress: Progress, before: int, whole: int) -> Progress:
    return lambda done, total: progress(before + done, whole)


def _read(
    folder: pathlib.Path, key: str, array: Any, context: ts.Context, progress: Progress
) -> np.ndarray:
    """An array into aligned memory, in slabs of whole chunks, a few of them at a time."""
    nodes = {"driver": "ocdbt", "base": folder.as_uri(), "cache_pool": "cache_pool#nodes"}
    spec = {"driver": "zarr", "kvstore": {**nodes, "path": key}}
    stored = ts.open(spec, read=True, open=True, context=context).result()
    if stored.shape != array.shape or stored.dtype.numpy_dtype != array.dtype:
        raise CorruptedError(f"{key} is {stored.dtype.name}{list(stored.shape)}")
    found = aligned_empty(array.shape)
    target = ts.array(found)
    rows: Any = stored.chunk_layout.read_chunk_template.shape[0]
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    for first in range(0, array.shape[0], rows):
        last = min(first + rows, array.shape[0])
        if len(pending) == _IN_FLIGHT:
            end, copied = pending.popleft()
            copied.result()
            progress(end, array.shape[0])
        pending.append((last, target[first:last].write(stored[first:last])))
    for _, copied in pending:
        copied.result()
    return found


def _nbytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
