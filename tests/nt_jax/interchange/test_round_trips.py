"""Fixtures in, every layout out, back in: the same bits, and the stored numbers everywhere."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import nt_jax
from nt_jax import cli
from nt_jax import workdir as workdirs
from nt_jax.checkpoint import save_params
from nt_jax.config import Experiment, MaskingConfig
from nt_jax.errors import InputError
from nt_jax.interchange import formats, runtimes
from nt_jax.interchange.exporter import HALF, WRITERS
from nt_jax.interchange.importer import import_checkpoint


@pytest.fixture(scope="module", params=["v1_tiny", "v2_tiny"])
def imported(request, fixtures, tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """Workdir of an imported fixture, and the fixture's outputs."""
    workdir = tmp_path_factory.mktemp("imported") / "run"
    source = fixtures / request.param
    assert cli.main(["import", str(source), "--workdir", str(workdir)]) == 0
    return workdir, dict(np.load(source / "outputs.npz"))


def params_of(path) -> dict:
    return {name: np.asarray(array) for name, array in formats.read(path)}


def assert_stored(found, outputs, tokenizer):
    """Every output that the runtime gives equals the stored one where it counts."""
    real = outputs["tokens"] != tokenizer.pad_id
    for name, value in found.items():
        kind, _, layer = name.partition("_")
        stored = outputs[f"embeddings_{layer}" if kind == "embedding" else name]
        if kind == "attention":
            value, stored = value.swapaxes(1, 2), stored.swapaxes(1, 2)
        error = np.abs(value[real] - stored[real]).max()
        assert error <= 1e-5 * np.abs(stored[real]).max(), name


def test_an_import_is_an_ordinary_workdir(imported, capfd):
    workdir, outputs = imported
    model = nt_jax.load(workdir)
    assert model.step == 0
    tokens = outputs["tokens"]
    found = model.apply(tokens, layers=(1,), attention=True)
    assert_stored({"logits": np.asarray(found["logits"])}, outputs, model.tokenizer)
    assert model.embed(["ACGTTGCAAC" * 8]).shape == (1, model.config.model.embed_dim)
    assert cli.main(["report", str(workdir)]) == 0
    assert cli.main(["import", str(workdir), "--workdir", str(workdir)]) == 2
    assert "not empty" in capfd.readouterr().err


@pytest.mark.parametrize("layout", WRITERS)
def test_out_and_back(imported, layout, tmp_path, capfd):
    workdir, outputs = imported
    tokenizer = nt_jax.load(workdir).tokenizer
    out = tmp_path / "out"
    export = ["export", "--checkpoint", str(workdir), "--format", layout, "--out", str(out)]
    assert cli.main(export) == 0
    assert capfd.readouterr().out.endswith("equal\n")
    assert json.loads((out / "certificate.json").read_text())["passed"] is True
    card = (out / "README.md").read_text()
    assert "Imported from `v" in card
    assert str(workdir.parent) not in card + (out / "certificate.json").read_text()
    for path in out.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert str(path.relative_to(out)) in card
    assert formats.layout(out) == layout
    assert_stored(runtimes.run(out, outputs["tokens"]), outputs, tokenizer)

    again = tmp_path / "again"
    import_checkpoint(str(out), again)
    before, after = params_of(workdir), params_of(again)
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert nt_jax.load(again).config.model == nt_jax.load(workdir).config.model

    assert cli.main(["verify", str(workdir), str(out)]) == 0
    assert cli.main(export) == 2
    assert "not empty" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out"]


@pytest.fixture(scope="module")
def strict(imported, tmp_path_factory) -> pathlib.Path:
    """The same weights with every compatibility setting of a config."""
    folder = tmp_path_factory.mktemp("strict") / "run"
    loaded = nt_jax.load(imported[0])
    model = dataclasses.replace(loaded.config.model, rotary_angles="compute_dtype")
    tokenizer = dataclasses.replace(loaded.config.tokenizer, letters="upper_acgtn")
    config = dataclasses.replace(loaded.config, model=model, tokenizer=tokenizer)
    workdirs.create(folder, config, {"imported_from": "a test"})
    save_params(folder, loaded.params, config, {"tokens": 0})
    return folder


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("imported", ["v2_tiny"], indirect=True)
def test_every_layout_keeps_the_compatibility_settings(strict, layout, tmp_path):
    weights = formats.read(strict)
    assert weights.model.rotary_angles == "compute_dtype"
    assert weights.tokenizer.letters == "upper_acgtn"
    WRITERS[layout](weights, MaskingConfig(), tmp_path, progress=lambda done, total: None)
    assert runtimes.describe(tmp_path) == (weights.model, weights.tokenizer)


@pytest.mark.parametrize("imported", ["v2_tiny"], indirect=True)
def test_other_letters_are_no_other_vocabulary(imported, strict):
    assert cli.main(["verify", str(imported[0]), str(strict)]) == 0


@pytest.mark.parametrize("imported", ["v2_tiny"], indirect=True)
def test_a_workdir_from_before_the_compatibility_settings(imported, tmp_path):
    """The fields are missing in config.json and in the checkpoint: both have the defaults."""
    old = tmp_path / "old"
    shutil.copytree(imported[0], old)
    for path in (old / "config.json", old / "checkpoints/0/meta/metadata"):
        values = json.loads(path.read_text())
        assert values["experiment"]["model"].pop("rotary_angles") == "float32"
        assert values["experiment"]["tokenizer"].pop("letters") == "any"
        values.pop("digest", None)  # of the checkpoint's meta, which was younger still
        path.write_text(json.dumps(values))
    model = nt_jax.load(old)
    assert model.config == nt_jax.load(imported[0]).config == workdirs.read_config(old)[0]
    assert formats.read(old).model.rotary_angles == "float32"


@pytest.mark.parametrize("layout", HALF)
def test_bfloat16_is_proven_with_its_own_tolerance(imported, layout, tmp_path, capfd):
    workdir, _ = imported
    out = tmp_path / "out"
    export = ["export", "--checkpoint", str(workdir), "--format", layout, "--out", str(out)]
    assert cli.main([*export, "--dtype", "bfloat16"]) == 0
    assert cli.main(["verify", str(workdir), str(out), "--dtype", "bfloat16"]) == 0
    assert cli.main(["verify", str(workdir), str(out)]) == 1
    assert "NOT equal" in capfd.readouterr().out


def test_another_checkpoint_is_not_equal(imported, tmp_path, capfd):
    workdir, _ = imported
    loaded = nt_jax.load(workdir)
    changed = jax.tree.map(np.array, loaded.params)
    changed["nt/block/ffn/fc1"]["w"][1] += 1e-3
    workdirs.create(tmp_path / "other", loaded.config, {"imported_from": "a test"})
    save_params(tmp_path / "other", changed, loaded.config, {"tokens": 0})
    verify = ["verify", str(workdir), str(tmp_path / "other")]
    assert cli.main([*verify, "--json"]) == 1
    certificate = json.loads(capfd.readouterr().out)
    wrong = {line["output"] for line in certificate["lines"] if line["relative"] > 1e-5}
    assert {"embedding_1", "attention_1"}.isdisjoint(wrong)
    assert {"embedding_2", "logits"} <= wrong
    assert cli.main([*verify, "--tolerance", "1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "/nowhere", "--workdir", "W"], "no such folder"),
        (["import", "nt_v2_50m_multispecie", "--workdir", "W"], "did you mean"),
        (["import", "EMPTY", "--workdir", "W"], "no checkpoint in a known layout"),
        (["export", "--checkpoint", "RUN", "--format", "onx", "--out", "W"], "known: hf"),
        (["export", "--checkpoint", "RUN@7", "--format", "nt", "--out", "W"], "there are [0]"),
        (["export", "--checkpoint", "RUN", "--format", "nt", "--out", "W", "--dtype", "bfloat16"],
         "float32 only"),
        (["verify", "RUN", "RUN"], "compared with itself"),
        (["verify", "RUN", "EMPTY"], "no checkpoint in a known layout"),
        (["verify", "RUN", "COPY", "--length", "1000"], "--length 1000: 2 to"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(imported, arguments, message, tmp_path, capfd):
    workdir, _ = imported
    (tmp_path / "EMPTY").mkdir()
    shutil.copytree(workdir, tmp_path / "COPY")
    places = {"RUN": str(workdir), "W": str(tmp_path / "W")}
    places |= {name: str(tmp_path / name) for name in ("EMPTY", "COPY")}

    def place(word: str) -> str:
        name, at, step = word.partition("@")
        return places.get(name, name) + at + step

    assert cli.main([place(word) for word in arguments]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "W").exists()


def test_an_import_is_no_run_to_resume(imported):
    with pytest.raises(InputError, match=r"imported weights, no run.*--init-from"):
        workdirs.claim(imported[0], Experiment(name="x"), "abc", None)


@pytest.mark.parametrize("layout", WRITERS)
def test_runs_in_bfloat16_leave_with_exact_weights(imported, layout, tmp_path):
    """What a pod trains: float32 parameters, bfloat16 arithmetic."""
    loaded = nt_jax.load(imported[0])
    half = dataclasses.replace(loaded.config.model, compute_dtype="bfloat16", remat="dots")
    config = dataclasses.replace(loaded.config, model=half)
    workdirs.create(tmp_path / "run", config, {"imported_from": "a test"})
    save_params(tmp_path / "run", jax.tree.map(np.array, loaded.params), config, {"tokens": 0})
    out = str(tmp_path / "out")
    checkpoint = str(tmp_path / "run")
    assert cli.main(["export", "--checkpoint", checkpoint, "--format", layout, "--out", out]) == 0
    assert cli.main(["verify", str(imported[0]), out]) == 0
