"""The published layout read as its own loader does: `joblib.load`, which runs what is in the file.

For `nt-jax import --unpickle` and nothing else; `joblib_file` reads the same files as data.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nt_jax.errors import InputError
from nt_jax.interchange import formats
from nt_jax.interchange.nt import read_nt
from nt_jax.interchange.weights import Weights


class HeldArray(NamedTuple):
    """An array in memory, read like one in a file (`StoredArray`)."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of what `read` returns."""
        return self.array.dtype

    def read(self) -> np.ndarray:
        """The array itself."""
        return self.array


def read_unpickled(source: str | pathlib.Path) -> Weights:
    """Weights of a published checkpoint whose joblib file is run; all of it is then in memory.

    Only for a file of trusted origin: it can do whatever the user can. Raises InputError where the
    folder has another layout, joblib is not installed, or the file does not load.
    """
    layout = formats.layout(source)
    if layout != "nt":
        raise InputError(f"{source}: --unpickle is for the published layout, this is {layout}")
    return read_nt(pathlib.Path(source), unpickle_tree)


def unpickle_tree(path: pathlib.Path) -> dict[str, HeldArray]:
    """`joblib_file.read_tree` by `joblib.load`; runs code of the file. Raises InputError."""
    try:
        # Comes with scikit-learn; no other part of nt-jax needs it.
        import joblib
    except ImportError:
        raise InputError("--unpickle needs joblib: pip install joblib") from None
    try:
        tree = joblib.load(path)
    except Exception as error:
        raise InputError(f"{path}: joblib cannot load it: {error!r}") from error
    return {
        f"{module}/{name}": HeldArray(np.asarray(array))
        for module, named in _items(tree, path)
        for name, array in _items(named, path)
    }


def _items(tree: Any, path: pathlib.Path) -> list[tuple[str, Any]]:
    # Old files hold Haiku's own mapping.
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a joblib file of {{module: {{name: array}}}}")
    return list(tree.items())
