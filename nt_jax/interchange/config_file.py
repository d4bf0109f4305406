"""`config.json` of an exported folder: which layout it is, and the configs of its model.

Folders of other makers have a `config.json` too; `format` tells ours apart, layout by layout.
"""

import json
import pathlib
from typing import Any

from nt_jax.config import ModelConfig, TokenizerConfig, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.interchange.weights import Weights

NAME = "config.json"
VOCABULARY = "vocab.txt"


def write_config(
    folder: pathlib.Path, layout: str, version: int, weights: Weights, **more: Any
) -> None:
    """Writes the model's and the tokenizer's config, and what else the layout keeps there."""
    values = {
        "format": layout,
        "version": version,
        "model": to_dict(weights.model),
        "tokenizer": to_dict(weights.tokenizer),
    }
    write_atomically(folder / NAME, json.dumps(values | more, indent=2) + "\n")


def write_vocabulary(folder: pathlib.Path, tokenizer: TokenizerConfig) -> None:
    """Writes `vocab.txt`, a token a line in the order of the ids, for programs without nt-jax."""
    write_atomically(folder / VOCABULARY, "\n".join(tokenizer.make().tokens) + "\n")


def read_config(
    folder: pathlib.Path, layout: str, version: int
) -> tuple[ModelConfig, TokenizerConfig]:
    """Inverse of `write_config`; InputError for a file that is missing, damaged or not ours."""
    path = folder / NAME
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; name a folder that `nt-jax export` wrote"
        ) from None
    except ValueError:
        raise InputError(f"{path}: damaged, not JSON; export the model again") from None
    if not isinstance(values, dict) or values.get("format") != layout:
        found = values.get("format") if isinstance(values, dict) else None
        raise InputError(f"{path}: format is {found!r}, not {layout!r}; this is another layout")
    if values.get("version") != version:
        raise InputError(
            f"{path}: version {values.get('version')!r} of {layout}; this nt-jax reads {version}"
        )
    model = from_dict(ModelConfig, values.get("model"), f"{path}: model")
    return model, from_dict(TokenizerConfig, values.get("tokenizer"), f"{path}: tokenizer")
