"""The benchmarks of speed race equals: same model, same tokens, same arithmetic."""

import json
import pathlib
import subprocess
import sys
from collections import Counter

import haiku as hk
import jax
import numpy as np
import pytest
from peers import contest, plain_haiku, train_cases
from peers.problem import IGNORED, Problem, problem, random_weights

from nt_jax.interchange.weights import to_params
from nt_jax.model.factory import build_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {"num_layers": 2, "num_heads": 2, "embed_dim": 16, "ffn_dim": 32}


@pytest.fixture(params=["nt_v1_500m_human_ref", "nt_v2_nano"])
def tiny(request) -> Problem:
    return problem(request.param, 4, 40, "float32", **TINY)


@pytest.fixture
def haiku_policies():
    yield
    for module in (hk.LayerNorm, plain_haiku.Transformer):
        hk.mixed_precision.clear_policy(module)


@pytest.mark.usefixtures("haiku_policies")
def test_the_plain_step_is_of_the_same_model(tiny, tmp_path):
    weights = random_weights(tiny)
    tiny.write(tmp_path, same_weights=True)
    tiny.write_batches(tmp_path)
    plain = plain_haiku.Train(str(tmp_path))
    inputs = plain.inputs[0]
    theirs = plain.model.apply(plain.params(), inputs)[0]
    ours = build_model(tiny.experiment.model, tiny.tokenizer).apply(
        jax.device_put(to_params(weights)), inputs
    )
    np.testing.assert_allclose(theirs, ours["logits"], rtol=1e-4, atol=1e-5)
    assert plain.about()["parameters"] == tiny.parameters


@pytest.mark.usefixtures("haiku_policies")
def test_micro_batches_of_the_plain_step_change_nothing(tiny, tmp_path):
    tiny.write(tmp_path, same_weights=True)
    tiny.write_batches(tmp_path)
    losses = []
    for parts in (1, 2):
        plain = plain_haiku.Train(str(tmp_path), parts=parts)
        plain.compile()
        losses.append(plain.load(3))
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_batches_look_like_dna_and_are_masked_as_ours(tiny, tmp_path):
    tiny.write_batches(tmp_path)
    tokens, inputs, labels = (
        np.load(tmp_path / f"{name}.npy") for name in ("tokens", "inputs", "labels")
    )
    first, end = tiny.tokenizer.kmer_ids
    assert (tokens[..., 0] == tiny.tokenizer.cls_id).all()
    assert ((tokens[..., 1:] >= first) & (tokens[..., 1:] < end)).all()
    assert len(np.unique(tokens)) > 300
    asked = labels != IGNORED
    assert (asked.sum(axis=-1) == round(0.15 * 39)).all()
    assert (labels[asked] == tokens[asked]).all()
    assert (inputs[~asked] == tokens[~asked]).all()
    assert (inputs[asked] == tiny.tokenizer.mask_id).mean() > 0.6


def test_sequences_reach_all_contestants_in_an_order_that_can_be_undone(tiny, tmp_path):
    lengths = [40, 7, 23, 40, 12]
    tiny.write_sequences(tmp_path, lengths)
    sequences = json.loads((tmp_path / "sequences.json").read_text())
    expected = [tiny.tokenizer.encode(sequence) for sequence in sequences]
    assert [row.size for row in expected] == lengths
    pad = tiny.tokenizer.pad_id

    def rows(pattern):
        return [row[row != pad] for p in sorted(tmp_path.glob(pattern)) for row in np.load(p)]

    by_length, order = rows("batch_*.npy"), np.load(tmp_path / "order.npy")
    for got, padded, row in zip(
        (by_length[number] for number in order), rows("padded_*.npy"), expected, strict=False
    ):
        np.testing.assert_array_equal(got, row)
        np.testing.assert_array_equal(padded, row)


def test_turns_go_round_and_who_fails_takes_no_more():
    taken: list[str] = []

    def turn(name, fails=False):
        def take():
            taken.append(name)
            if fails:
                raise contest.FailedError("out of memory", no_memory=True)
            return 1.0

        return take

    turns = {"a": turn("a"), "b": turn("b", fails=True), "c": turn("c")}
    found, failed = contest.take_turns(turns, 4, contest.Clock(60))
    assert found == {"a": [1.0] * 4, "b": [], "c": [1.0] * 4}
    assert list(failed) == ["b"]
    assert Counter(taken) == {"a": 4, "b": 1, "c": 4}
    assert taken[:5] == ["a", "b", "c", "c", "a"]


def test_cases_are_the_published_models_and_the_one_of_the_targets():
    sizes = {case.name: case.problem.parameters for case in train_cases.gpu_cases()}
    assert {name: round(size / 1e6) for name, size in sizes.items()} == {
        "v1_500m": 486, "v2_500m": 496, "v1_2b5": 2548, "v2_250m": 234, "v2_50m": 55,
    }  # fmt: skip
    assert train_cases.cpu_cases()[0].problem.parameters == 21_837_961
    [one] = train_cases.chosen_cases(train_cases.gpu_cases(), ["v2_50m=64"])
    assert (one.problem.batch, one.problem.length) == (64, 2048)
    for case in train_cases.gpu_cases():
        for parts in case.parts.values():
            assert case.problem.batch % parts == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("script", ["train_step", "embedding"])
def test_a_small_run_agrees_and_fills_its_table(script, tmp_path):
    pytest.importorskip("transformers")
    names = ["nt-jax", "torch" if script == "embedding" else "torch.compile", "plain JAX"]
    command = [sys.executable, f"benchmarks/{script}.py", "v1_500m", "--small", "--rounds", "2"]
    command += ["--seconds", "1000", "--out", str(tmp_path), "--only", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [case] = json.loads((tmp_path / f"{script}_gpu.json").read_text())["cases"]
    assert [row["contestant"] for row in case["rows"]] == names
    for row in case["rows"]:
        assert row["tokens_per_s"] > 0
        assert row.get("agrees", True)
    text = (tmp_path / f"{script}_gpu.md").read_text()
    assert all(f"| {name} " in text for name in names)
