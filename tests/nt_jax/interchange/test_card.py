"""The model card: what the run says, no more, and how to use the files."""

import dataclasses
import json

import pytest

from nt_jax.config import Experiment
from nt_jax.interchange.card import write_card
from nt_jax.report.record import read_run
from nt_jax.workdir import create, store_datacard

CARD = {
    "kind": "real",
    "sources": [{"name": "yeast.fa", "bases": 12_071_326}],
    "recipe": {"name": "window=1536"},
    "validation": ["chrXVI"],
}


@pytest.fixture
def run(tmp_path):
    """Builds the record of a run of 200 steps."""

    def make(**origin):
        folder = tmp_path / "run"
        create(folder, Experiment(name="nano"), {"dataset": "abc", "init_from": None} | origin)
        store_datacard(folder, CARD)
        return read_run(folder)

    return make


def card_of(run, tmp_path, layout="nt", **files) -> str:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in files.items():
        (out / name.replace("__", ".")).write_text(text)
    write_card(run, 200, layout, out, "logits ok\nequal\n")
    return (out / "README.md").read_text()


def test_data_recipe_and_tokens(run, tmp_path):
    record = run()
    config = record.experiment
    text = card_of(record, tmp_path, weights="x")
    assert "yeast.fa (12,071,326 bases)" in text
    assert "chrXVI" in text
    seen = 200 * config.train.global_batch * config.data.sequence_length
    assert f"{seen:,} |" in text
    assert "random weights" in text
    assert "None recorded for this checkpoint." in text
    assert "logits ok\nequal" in text
    # `printf x | sha256sum`
    assert "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" in text


def test_simulated_data_are_named(run, tmp_path):
    record = dataclasses.replace(run(), datacard=CARD | {"kind": "simulated"})
    assert "bases) SIMULATED" in card_of(record, tmp_path)


def test_a_missing_data_card_is_said(run, tmp_path):
    text = card_of(dataclasses.replace(run(), datacard=None), tmp_path)
    assert "no data card in the workdir" in text
    assert "`abc`" in text


def test_validation_of_this_step_only(run, tmp_path):
    row = {
        "step": 200,
        "mask_loss": 7.5,
        "unigram_mask_loss": 8.0,
        "mask_difference": -0.5,
        "mask_difference_low": -0.6,
        "mask_difference_high": -0.4,
    }
    rows = [row | {"step": 100, "mask_loss": 9.25}, row]
    text = card_of(dataclasses.replace(run(), evaluations={"validation": rows}), tmp_path)
    assert "7.5000 nats" in text
    assert "9.2500" not in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/somebody/models/v2_tiny", "`v2_tiny`"),
        ("../v2_tiny", "`v2_tiny`"),
        ("OWNER/model@main", "`OWNER/model@main`"),
    ],
)
def test_imports_say_where_from_without_paths(run, tmp_path, source, shown):
    text = card_of(run(imported_from=source), tmp_path)
    assert f"Imported from {shown}; nothing was trained by nt-jax." in text
    assert "tokens seen" not in text
    assert "somebody" not in text


@pytest.mark.parametrize(
    ("layout", "files", "library", "use"),
    [
        ("hf", {}, "transformers", 'from_pretrained("FOLDER")\nmodel'),
        ("hf", {"modeling_nt__py": ""}, "transformers", "trust_remote_code=True)\nmodel"),
        ("stablehlo", {"run__py": "print('me')\n"}, "jax", "```python\nprint('me')\n```"),
        ("nt", {}, "nt-jax", "nt-jax import FOLDER --workdir RUN"),
    ],
)
def test_every_layout_says_how_to_use_it(run, tmp_path, layout, files, library, use):
    text = card_of(run(), tmp_path, layout, **files)
    assert f"\nlibrary_name: {library}\n" in text
    assert use in text


def test_a_run_keeps_its_data_card(run):
    assert json.loads((run().folder / "datacard.json").read_text()) == CARD
