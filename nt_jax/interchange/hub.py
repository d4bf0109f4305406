"""The published checkpoints on the Hugging Face hub, by their name there or by ours."""

import pathlib
import re
import types
from collections.abc import Mapping

from nt_jax.errors import InputError, nearest

_ORGANISATION = "InstaDeepAI"
PUBLISHED: Mapping[str, str] = types.MappingProxyType(
    {
        preset: f"{_ORGANISATION}/{name}"
        for preset, name in {
            "nt_v1_500m_human_ref": "nucleotide-transformer-500m-human-ref",
            "nt_v1_500m_1000g": "nucleotide-transformer-500m-1000g",
            "nt_v1_2b5_1000g": "nucleotide-transformer-2.5b-1000g",
            "nt_v1_2b5_multispecies": "nucleotide-transformer-2.5b-multi-species",
            "nt_v2_50m_multispecies": "nucleotide-transformer-v2-50m-multi-species",
            "nt_v2_100m_multispecies": "nucleotide-transformer-v2-100m-multi-species",
            "nt_v2_250m_multispecies": "nucleotide-transformer-v2-250m-multi-species",
            "nt_v2_500m_multispecies": "nucleotide-transformer-v2-500m-multi-species",
            "agro_nt_1b": "agro-nucleotide-transformer-1b",
            "codon_nt_50m": "nucleotide-transformer-v2-50m-3mer-multi-species",
        }.items()
    }
)
"""Preset -> repository of the published weights."""

# The first that a repository has: the JAX original, then what is safer than a pickle.
_ORIGINAL = "jax_model"
_CONFIGS = ["config.json", "vocab.txt"]
_CHOICES = (
    ([f"{_ORIGINAL}/*"], f"{_ORIGINAL}/*.joblib"),
    ([*_CONFIGS, "*.safetensors", "*.safetensors.index.json"], "*.safetensors"),
    ([*_CONFIGS, "pytorch_model*.bin", "pytorch_model*.bin.index.json"], "*.bin"),
)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def find(name: str) -> tuple[pathlib.Path, str]:
    """A local folder with the checkpoint, and a short name for it.

    `name` is a folder, a preset with published weights, or `OWNER/REPOSITORY[@REVISION]` on the
    hub, where the published JAX layout goes before safetensors, and those before PyTorch pickles.
    What is in the cache is not fetched again; `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HOME` are
    honoured. Raises InputError.
    """
    folder = pathlib.Path(name.rpartition("@")[0] if _has_step(name) else name)
    if folder.exists():
        return pathlib.Path(name), folder.resolve().name
    repository, _, revision = PUBLISHED.get(name, name).partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(
            f"{name}: no such folder, and no published name{nearest(name, PUBLISHED)}; give a "
            f"folder, OWNER/REPOSITORY, or one of {', '.join(PUBLISHED)}"
        )
    short = name if name in PUBLISHED else repository.partition("/")[2]
    return _fetch(repository, revision or None), short


def _has_step(name: str) -> bool:
    return name.rpartition("@")[2].isdigit() and "@" in name


def _fetch(repository: str, revision: str | None) -> pathlib.Path:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{repository}: fetching needs huggingface_hub: pip install 'nt-jax[export]'"
        ) from None

    try:
        for patterns, weights in _CHOICES:
            folder = pathlib.Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision, allow_patterns=patterns
                )
            )
            found = next(folder.glob(weights), None)
            if found:
                return found.parent
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{repository}: no such folder, and not fetched from the hub ({reason})"
        ) from None
    raise InputError(
        f"{repository}: has no {_ORIGINAL}/ and neither safetensors nor PyTorch weights"
    )
