"""study.json: a folder is held to what was declared when it was begun."""

import dataclasses
import json
import re

import pytest

from nt_jax.config import Experiment, MeshConfig, from_json
from nt_jax.errors import InputError
from nt_jax.registry import find_experiment
from nt_jax.studies import declared
from nt_jax.studies.folder import Folder
from nt_jax.studies.grid import LossOn, Probe, Study, StudyRun

NANO = find_experiment("nt_v2_nano")
RUN = StudyRun(name="a", experiment=NANO, source="yeast", tags={"size": "nano"})


def of(*runs: StudyRun, name: str = "s") -> Study:
    return Study(name=name, runs=runs)


def changed(group: str, **fields) -> StudyRun:
    part = dataclasses.replace(getattr(NANO, group), **fields)
    return dataclasses.replace(RUN, experiment=dataclasses.replace(NANO, **{group: part}))


def test_what_a_claim_writes(tmp_path):
    places = declared.claim(of(RUN), tmp_path, {"yeast": "/data/yeast"})
    assert places == {"yeast": "/data/yeast"}
    stored = json.loads((tmp_path / "study.json").read_text())
    assert stored["study"] == "s"
    assert len(stored["digest"]) == 64
    text = Folder(tmp_path).experiment(RUN).read_text()
    assert from_json(Experiment, text) == NANO
    assert find_experiment(str(Folder(tmp_path).experiment(RUN))) == NANO


def test_the_same_again_changes_no_byte(tmp_path):
    declared.claim(of(RUN), tmp_path, {"yeast": "/data/yeast"})
    before = (tmp_path / "study.json").read_bytes()
    assert declared.claim(of(RUN), tmp_path, {}) == {"yeast": "/data/yeast"}
    assert (tmp_path / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            of(changed("optim", peak_lr=1.0)),
            "a was declared with optim.peak_lr=0.0003, now with 1.0",
        ),
        (of(changed("train", steps=1)), "train.steps=8500, now with 1"),
        (of(dataclasses.replace(RUN, source="human")), "source=yeast, now with human"),
        (of(dataclasses.replace(RUN, tags={"size": "x"})), "tags={'size': 'nano'}"),
        (of(dataclasses.replace(RUN, held_out=True)), "held_out=False, now with True"),
        (of(dataclasses.replace(RUN, name="b")), "a was declared and is no more"),
        (of(RUN, name="t"), "holds the study s, not t"),
    ],
)
def test_a_changed_declaration_is_refused_and_says_what_differs(study, message, tmp_path):
    declared.claim(of(RUN), tmp_path, {})
    before = (tmp_path / "study.json").read_bytes()
    for ask in (
        lambda: declared.claim(study, tmp_path, {}),
        lambda: declared.check(study, tmp_path),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            ask()
    assert (tmp_path / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    "study",
    [
        of(RUN, dataclasses.replace(changed("train", seed=1), name="b")),
        of(dataclasses.replace(RUN, losses_on=(LossOn(source="human"),))),
        of(dataclasses.replace(RUN, probes=(Probe(task="nt/H3K9ac"),))),
        of(changed("mesh", **dataclasses.asdict(MeshConfig(fsdp=4)))),
        of(dataclasses.replace(RUN, data="/elsewhere")),
    ],
)
def test_runs_and_evaluations_may_be_added_and_places_may_change(study, tmp_path):
    declared.claim(of(RUN), tmp_path, {})
    digest = json.loads((tmp_path / "study.json").read_text())["digest"]
    declared.claim(study, tmp_path, {})
    declared.check(study, tmp_path)
    moved = study.runs[0].data == "/elsewhere"
    assert (json.loads((tmp_path / "study.json").read_text())["digest"] == digest) == moved


def test_an_evaluation_that_is_taken_away_is_missed(tmp_path):
    declared.claim(of(dataclasses.replace(RUN, probes=(Probe(task="x"),))), tmp_path, {})
    with pytest.raises(InputError, match=r"'task': 'x'.*is no more"):
        declared.claim(of(RUN), tmp_path, {})


def test_data_of_the_command_line_goes_before_that_of_the_last_time_and_the_declaration(tmp_path):
    study = of(dataclasses.replace(RUN, data="/declared"))
    assert declared.places(study, tmp_path, {}) == {"yeast": "/declared"}
    declared.claim(study, tmp_path, {"yeast": "/named"})
    assert declared.places(study, tmp_path, {}) == {"yeast": "/named"}
    assert declared.places(study, tmp_path, {"yeast": "/now"}) == {"yeast": "/now"}


def test_a_dataset_that_is_another_one_is_refused(tmp_path):
    declared.claim(of(RUN), tmp_path, {"yeast": "/a"}, {"yeast": "0" * 64})
    declared.claim(of(RUN), tmp_path, {"yeast": "/moved"}, {"yeast": "0" * 64})
    declared.claim(of(RUN), tmp_path, {}, {})
    with pytest.raises(InputError, match=r"yeast is another dataset than before \(fingerprint 1"):
        declared.claim(of(RUN), tmp_path, {"yeast": "/a"}, {"yeast": "1" * 64})


def test_folders_that_are_no_study(tmp_path):
    with pytest.raises(InputError, match="no study was run here"):
        declared.check(of(RUN), tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and no study's folder"):
        declared.claim(of(RUN), tmp_path, {})
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        declared.check(of(RUN), tmp_path)
