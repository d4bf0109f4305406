"""What a workdir accepts, and files that are whole or absent."""

import dataclasses
import json
import os

import numpy as np
import pytest

from nt_jax import files, workdir
from nt_jax.config import Experiment, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.model.presets import preset

EXPERIMENT = Experiment(
    name="tiny", model=preset("nt_v2_nano").model, tokenizer=TokenizerConfig(k=6)
)


def test_a_start_killed_at_its_first_file_can_be_repeated(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def killed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            workdir.claim(folder, EXPERIMENT, "abc", None)
    assert [path.name for path in folder.iterdir()] == ["config.json.tmp"]
    workdir.claim(folder, EXPERIMENT, "abc", None)
    assert workdir.read_config(folder)[0] == EXPERIMENT
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_somebody_elses_files_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        workdir.claim(tmp_path, EXPERIMENT, "abc", None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_from_before_a_field_existed_goes_on(tmp_path):
    workdir.claim(tmp_path, EXPERIMENT, "abc", None)
    path = tmp_path / workdir.CONFIG
    record = json.loads(path.read_text())
    del record["experiment"]["model"]["rotary_angles"], record["experiment"]["tokenizer"]["letters"]
    path.write_text(json.dumps(record))
    workdir.claim(tmp_path, EXPERIMENT, "abc", None)
    model = dataclasses.replace(EXPERIMENT.model, rotary_angles="compute_dtype")
    with pytest.raises(InputError, match=r"model\.rotary_angles=float32, this one has compute"):
        workdir.claim(tmp_path, dataclasses.replace(EXPERIMENT, model=model), "abc", None)


def test_what_moves_a_bit_may_not_change_and_the_rest_may(tmp_path):
    workdir.claim(tmp_path, EXPERIMENT, "abc", None)
    data = dataclasses.replace(EXPERIMENT.data, workers=3, path="/elsewhere")
    moved = dataclasses.replace(EXPERIMENT, data=data)
    workdir.claim(tmp_path, moved, "abc", None)
    assert workdir.read_config(tmp_path)[0] == moved
    with pytest.raises(InputError, match="trained on another dataset"):
        workdir.claim(tmp_path, moved, "abd", None)
    train = dataclasses.replace(EXPERIMENT.train, seed=1)
    with pytest.raises(InputError, match=r"train\.seed=0, this one has 1"):
        workdir.claim(tmp_path, dataclasses.replace(moved, train=train), "abc", None)
    with pytest.raises(InputError, match="from random weights, not from other"):
        workdir.claim(tmp_path, moved, "abc", "other")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiment": 3}', "{}"])
def test_an_unreadable_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: unreadable"):
        workdir.read_config(tmp_path)


def test_counts_come_back(tmp_path):
    assert workdir.stored_counts(tmp_path) is None
    workdir.store_counts(tmp_path, np.arange(5))
    np.testing.assert_array_equal(workdir.stored_counts(tmp_path), np.arange(5))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.write_atomically(path, "new")
    assert path.read_text() == "old"
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
