"""Embeddings on disk: a Parquet table whose last column holds the vectors, and a cache of them.

The cache lies in a folder; a file's name is the hash of everything that its vectors depend on:
parameters, layer, pooling, context, tokenizer and the sequences.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from nt_jax.checksums import checksums
from nt_jax.errors import InputError
from nt_jax.evaluation.embed import Pooling
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.files import write_atomically

COLUMN = "embedding"


def parquet_bytes(
    vectors: Float[np.ndarray, "N D"],
    columns: Mapping[str, Sequence[object]],
    about: Mapping[str, object],
) -> bytes:
    """A table of `columns` and the vectors (fixed-size lists of float32); `about` is metadata."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({**{name: list(values) for name, values in columns.items()}, COLUMN: lists})
    table = table.replace_schema_metadata({"nt-jax": json.dumps(about)})
    content = io.BytesIO()
    # Vectors of floats do not compress; trying costs more than writing them.
    pq.write_table(table, content, compression="none", use_dictionary=False)
    return content.getvalue()


def read_vectors(path: pathlib.Path) -> Float[np.ndarray, "N D"]:
    """The vectors of such a table; InputError when it is damaged."""
    try:
        lists = pq.read_table(path, columns=[COLUMN])[COLUMN].combine_chunks()
        return lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
    except (OSError, KeyError, AttributeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: damaged ({error}); delete it to embed again") from error


def digest(value: object) -> str:
    """SHA-256 of the JSON text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parameters_digest(loaded: LoadedModel) -> str:
    """One hash of all parameters, from the checksum of every array."""
    return digest(checksums(loaded.params))


def cached_layers(
    loaded: LoadedModel,
    sequences: Sequence[str],
    layers: Sequence[int],
    folder: pathlib.Path | None,
    pooling: Pooling = "mean",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Float[np.ndarray, "N D"]]:
    """`LoadedModel.embed_layers`, from `folder` where a layer was computed before.

    Without a folder nothing is kept. Layers that are missing are computed in one pass.
    """
    if folder is None:
        return loaded.embed_layers(sequences, layers, pooling, progress=progress)
    about = {
        "parameters": parameters_digest(loaded),
        "model": dataclasses.asdict(loaded.config.model),
        "tokenizer": dataclasses.asdict(loaded.config.tokenizer),
        "context": loaded.context,
        "pooling": pooling,
        "sequences": hashlib.sha256("\n".join(sequences).encode()).hexdigest(),
    }
    paths = {
        layer: folder / f"{digest({**about, 'layer': layer})[:32]}.parquet" for layer in layers
    }
    missing = [layer for layer in layers if not paths[layer].is_file()]
    found = loaded.embed_layers(sequences, missing, pooling, progress=progress) if missing else {}
    folder.mkdir(parents=True, exist_ok=True)
    for layer, vectors in found.items():
        write_atomically(
            paths[layer], parquet_bytes(vectors, {}, {**about, "layer": layer, "step": loaded.step})
        )
    return {
        layer: found[layer] if layer in found else read_vectors(paths[layer]) for layer in layers
    }
