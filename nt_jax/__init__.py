"""nt-jax: open pretraining of Nucleotide Transformers. Importing it does not import JAX."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from nt_jax import environment

        environment.quiet()
        from nt_jax.evaluation.loading import load

        return load
    raise AttributeError(f"module 'nt_jax' has no attribute {name!r}")
