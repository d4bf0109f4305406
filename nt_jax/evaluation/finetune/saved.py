"""What a fine-tuning leaves behind: adapter files, and workdirs with the adapters merged in.

`adapter.safetensors` holds what was trained (`MODULE/ARRAY`) and the head, `adapter.json` what is
needed to use it: the method, the task's classes, and which parameters it belongs to. A method that
trains the encoder itself stores the head alone there, and the encoder as a workdir, `model/`.
"""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import haiku as hk
import jax
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as safetensors_bytes

from nt_jax import sharding, workdir
from nt_jax.checkpoint import parse_checkpoint, restore_params, save_params
from nt_jax.checksums import checksums, named
from nt_jax.config import Experiment, MeshConfig, from_dict
from nt_jax.errors import InputError
from nt_jax.evaluation.embeddings import digest
from nt_jax.evaluation.finetune.head import HEAD, Head
from nt_jax.evaluation.finetune.methods import find_method
from nt_jax.evaluation.finetune.objectives import OBJECTIVES
from nt_jax.evaluation.finetune.problem import Encoder
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.tasks import Kind
from nt_jax.files import write_atomically
from nt_jax.model.factory import Params, build_model
from nt_jax.model.flash import attention_here
from nt_jax.model.layers import flattened, recomputed, saved

ADAPTER, DESCRIPTION, MODEL = "adapter.safetensors", "adapter.json", "model"
FORMAT, VERSION = "nt-jax/adapter", 1


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A checkpoint with its adapters and a head."""

    encoder: Encoder
    trained: Params
    """Adapters; {} where the encoder itself was trained."""
    head: Head
    kind: Kind
    classes: tuple[str, ...]
    """Columns of the predictions; () for values."""

    def predict(self, sequences: Sequence[str]) -> np.ndarray:
        """Probabilities [N, C] of classes or labels, or values [N] in the units of the task.

        Raises InputError for a sequence that is empty, holds a letter that is no nucleotide, or
        is longer than the checkpoint's context.
        """
        outputs = self.encoder.predict(self.trained, self.head, sequences)
        return OBJECTIVES[self.kind].predict(outputs)


def open_encoder(params: Params, experiment: Experiment, settings: Settings, mesh: Mesh) -> Encoder:
    """Joins parameters with the functions of a method."""
    method = find_method(settings.method, settings.rank)
    one_cpu = jax.default_backend() == "cpu" and mesh.size == 1
    model = build_model(
        experiment.model,
        experiment.tokenizer.make(),
        attention_here(experiment.model),
        intercept=flattened(method.intercept) if one_cpu else method.intercept,
        light=recomputed if one_cpu else saved,
    )
    return Encoder(
        experiment=experiment,
        model=model,
        params=params,
        method=method,
        mesh=mesh,
        settings=settings,
    )


def restore_on(mesh: Mesh, name: str | pathlib.Path) -> tuple[Params, int, Experiment]:
    """Parameters of `DIR[@STEP]`, sharded over the mesh."""
    folder, step = parse_checkpoint(name)
    if mesh.size == 1:
        return restore_params(folder, step)
    return restore_params(folder, step, lambda tree: sharding.state_sharding(tree, mesh))


def save_adapter(
    folder: pathlib.Path,
    encoder: Encoder,
    trained: Params,
    head: Head,
    description: dict[str, Any],
) -> int:
    """Writes the two files; returns the bytes of the tensors' file."""
    stored = {} if encoder.method.name == "full" else trained
    tensors = {path: np.ascontiguousarray(x) for path, x in named({**stored, HEAD: dict(head)})}
    # One entry: the library writes several in an order that changes from process to process.
    content = safetensors_bytes(tensors, {"format": f"{FORMAT}/{VERSION}"})
    write_atomically(folder / ADAPTER, content)
    described = {
        "format": FORMAT,
        "version": VERSION,
        **description,
        "settings": dataclasses.asdict(encoder.settings),
    }
    write_atomically(folder / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    return len(content)


def save_model(folder: pathlib.Path, encoder: Encoder, trained: Params, origin: str) -> str:
    """Writes the encoder with `trained` merged in as an ordinary workdir; whole or not at all.

    `nt-jax probe`, `embed` and `export` take it as they take any; the head of the task is not in
    it. Returns the checksum of its parameters.
    """
    merged = encoder.method.merge(encoder.params, trained)
    identity = digest(checksums(merged))
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    workdir.create(part, encoder.experiment, {"finetuned_from": origin})
    encoder.tokenizer.save(part / workdir.TOKENIZER)
    save_params(part, jax.tree.map(np.asarray, merged), encoder.experiment, {"tokens": 0})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return identity


def load_adapter(
    folder: str | pathlib.Path, checkpoint: str | pathlib.Path | None = None
) -> FineTuned:
    """The fine-tuned model that lies in `folder`.

    `checkpoint` (`DIR[@STEP]`) is given where the one it was made from has moved. Raises
    InputError for missing or damaged files, and for a checkpoint with other parameters.
    """
    folder = pathlib.Path(folder)
    described = _description(folder)
    try:
        settings = from_dict(Settings, described["settings"], str(folder / DESCRIPTION))
        expected, name = described["parameters"], described["checkpoint"]
        kind, classes = described["kind"], tuple(described["classes"])
    except KeyError as error:
        raise InputError(f"{folder / DESCRIPTION}: no {error}") from error
    if settings.method == "full":
        name = folder / MODEL
    elif checkpoint is not None:
        name = checkpoint
    devices = jax.devices()
    # Batches that do not divide over all devices stay on one.
    used = devices[:1] if settings.batch % len(devices) else devices
    mesh = sharding.make_mesh(MeshConfig(), used)
    params, _, experiment = restore_on(mesh, name)
    if digest(checksums(params)) != expected:
        raise InputError(
            f"{folder}: made from other parameters than those of {name}; give the checkpoint that "
            f"it was made from ({described['checkpoint']})"
        )
    encoder = open_encoder(params, experiment, settings, mesh)
    arrays = _tensors(folder / ADAPTER)
    adapters = {} if settings.method == "full" else jax.eval_shape(encoder.start)
    wanted = {path: x.shape for path, x in named(adapters)}
    head = {
        path.rpartition("/")[2]: array
        for path, array in arrays.items()
        if path.startswith(f"{HEAD}/")
    }
    found = {path: x.shape for path, x in arrays.items() if not path.startswith(f"{HEAD}/")}
    if found != wanted:
        raise InputError(f"{folder / ADAPTER}: not the tensors that {DESCRIPTION} describes")
    trained = hk.data_structures.map(lambda module, array, _: arrays[f"{module}/{array}"], adapters)
    return FineTuned(encoder, trained, head, kind, classes)


def _description(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        inner = sorted(entry.parent.name for entry in folder.glob(f"*/{DESCRIPTION}"))
        more = f"; its folds have one each: {', '.join(inner)}" if inner else ""
        raise InputError(f"{folder}: no {DESCRIPTION}{more}")
    try:
        described = json.loads(path.read_text())
        identity = described.get("format"), described.get("version")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: unreadable ({error})") from error
    if identity != (FORMAT, VERSION):
        raise InputError(f"{path}: not an adapter of {FORMAT}, version {VERSION}")
    return described


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return parse_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: unreadable ({error}); copy it again") from error


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz file, atomically."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """What `write_arrays` wrote, None if there is no file; InputError when it is damaged."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error
