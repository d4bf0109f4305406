"""Golden texts: every experiment's config and the numbers of three training steps.

A changed hyper-parameter shows as a changed file. `UPDATE_GOLDEN=1 pytest -k golden`
rewrites them; the diff is then reviewed like code.
"""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax import optim, registry
from nt_jax.config import Experiment, ModelConfig, OptimConfig, TrainConfig, from_json, to_json
from nt_jax.model.factory import build_model
from nt_jax.step import init_state, make_train_step
from nt_jax.tokenizers import KmerTokenizer

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
CONTRACT = {
    "nt_v1_500m_human_ref", "nt_v1_500m_1000g", "nt_v1_2b5_1000g", "nt_v1_2b5_multispecies",
    "nt_v2_50m_multispecies", "nt_v2_100m_multispecies", "nt_v2_250m_multispecies",
    "nt_v2_500m_multispecies", "agro_nt_1b", "codon_nt_50m", "nt_v2_nano", "nt_v2_micro",
}  # fmt: skip


def golden(name: str, text: str) -> str:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path.read_text()


def test_every_name_of_the_contract_is_registered():
    assert set(registry.names()) >= CONTRACT


@pytest.mark.parametrize("name", registry.names())
def test_config_text(name):
    experiment = registry.find_experiment(name)
    text = to_json(experiment)
    assert experiment.name == name
    assert golden(f"configs/{name}.json", text) == text
    assert from_json(Experiment, text) == experiment


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_an_experiment_says_how_to_run_it_and_what_is_published(name):
    module = __import__(f"experiments.{name}", fromlist=["config"])
    assert f"nt-jax pretrain {name} " in module.__doc__
    length = registry.find_experiment(name).data.sequence_length
    assert length <= registry.find_experiment(name).model.max_positions


def test_published_budgets():
    """Tokens and schedule of FACTS, within half a step's tokens."""
    budgets = {
        "nt_v1_500m_human_ref": 300e9, "nt_v1_500m_human_ref_50b": 50e9,
        "nt_v1_500m_1000g": 300e9, "nt_v1_500m_1000g_50b": 50e9, "nt_v1_2b5_1000g": 300e9,
        "nt_v1_2b5_multispecies": 300e9, "nt_v2_50m_multispecies": 300e9,
        "nt_v2_100m_multispecies": 300e9, "nt_v2_250m_multispecies": 800e9,
        "nt_v2_500m_multispecies": 1e12, "nt_v2_500m_multispecies_1000": 1e12,
        "agro_nt_1b": 472.5e9,
    }  # fmt: skip
    for name, tokens in budgets.items():
        experiment = registry.find_experiment(name)
        per_step = experiment.train.global_batch * experiment.data.sequence_length
        assert experiment.train.steps * per_step == pytest.approx(tokens, rel=1e-3), name
        assert per_step == pytest.approx(1.5e6 if name == "agro_nt_1b" else 1e6, rel=0.05)
        assert experiment.optim == OptimConfig()
        thousand_genomes = "1000g" in name
        assert experiment.masking.random == (0.0 if thousand_genomes else 0.1), name


def test_three_training_steps():
    experiment = Experiment(
        name="golden",
        model=ModelConfig(num_layers=2, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=32),
        optim=OptimConfig(warmup_steps=2, clip=1.0),
        train=TrainConfig(steps=10, global_batch=4, seed=7),
    )
    tokenizer = KmerTokenizer(k=3, vocabulary="v2")
    first, end = tokenizer.kmer_ids
    tokens = (jnp.arange(4 * 24, dtype=jnp.int32).reshape(4, 24) * 7) % (end - first) + first
    tokens = tokens.at[:, 0].set(tokenizer.cls_id).at[1, 18:].set(tokenizer.pad_id)
    model = build_model(experiment.model, tokenizer)
    rule = optim.optimizer(experiment.optim, 10)
    state = jax.jit(functools.partial(init_state, model, rule, 7))()
    step = jax.jit(
        make_train_step(
            model, rule, optim.learning_rate(experiment.optim, 10), tokenizer, experiment
        )
    )
    found = []
    for _ in range(3):
        state, metrics = step(state, tokens)
        found.append({name: float(value) for name, value in metrics.items()})
    found.append({"parameters": float(sum(jnp.sum(x**2) for x in jax.tree.leaves(state.params)))})
    text = golden("three_steps.json", json.dumps(found, indent=1) + "\n")
    for mine, expected in zip(found, json.loads(text), strict=True):
        assert mine.keys() == expected.keys()
        # Another CPU may sum in another order.
        np.testing.assert_allclose(list(mine.values()), list(expected.values()), rtol=1e-4)
