"""Datasets of the studies that tests run."""

import pathlib

import pytest

from tests.nt_jax.studies.small import make_datasets


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> pathlib.Path:
    """A folder that holds the datasets flat and skewed."""
    folder = tmp_path_factory.mktemp("studies")
    make_datasets(folder)
    return folder
