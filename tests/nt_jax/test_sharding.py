"""Sharding changes speed, not results: loss, gradients and masks on eight fake devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax import optim, sharding
from nt_jax.config import (
    ConfigError,
    DataConfig,
    Experiment,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from nt_jax.model.factory import build_model
from nt_jax.step import init_state, make_train_step
from nt_jax.tokenizers import KmerTokenizer

TOKENIZER = KmerTokenizer(k=3, vocabulary="v2")
EXPERIMENT = Experiment(
    name="sharding",
    model=ModelConfig(num_layers=2, num_heads=4, embed_dim=32, ffn_dim=64, max_positions=64),
    data=DataConfig(sequence_length=32),
    optim=OptimConfig(schedule="constant", warmup_steps=0, peak_lr=1e-3, clip=1.0),
    train=TrainConfig(steps=10, global_batch=16),
)


def tokens(step: int) -> np.ndarray:
    rows = np.random.default_rng(step).integers(*TOKENIZER.kmer_ids, (16, 32)).astype(np.int32)
    rows[:, 0] = TOKENIZER.cls_id
    rows[3, 20:] = TOKENIZER.pad_id
    return rows


def run(mesh_config: MeshConfig, devices: int, experiment: Experiment = EXPERIMENT, steps=6):
    """Loss curve, gradient norms and final state of a few steps on a mesh."""
    mesh = sharding.make_mesh(mesh_config, jax.devices()[:devices])
    model = build_model(experiment.model, TOKENIZER)
    rule = optim.optimizer(experiment.optim, 10)
    fresh = functools.partial(init_state, model, rule, 0)
    placed = sharding.state_sharding(jax.eval_shape(fresh), mesh)
    state = jax.jit(fresh, out_shardings=placed)()
    step = jax.jit(
        make_train_step(
            model, rule, optim.learning_rate(experiment.optim, 10), TOKENIZER, experiment
        ),
        donate_argnums=0,
        out_shardings=(placed, NamedSharding(mesh, P())),
    )
    curve = []
    for number in range(steps):
        batch = jax.device_put(tokens(number), NamedSharding(mesh, sharding.BATCH))
        state, metrics = step(state, batch)
        curve.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(curve), state


@pytest.fixture(scope="module")
def single():
    return run(MeshConfig(), 1)


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 4), (1, 2, 2)])
def test_every_mesh_gives_the_single_device_curve(axes, single):
    curve, state = run(MeshConfig(data=axes[0], fsdp=axes[1], tensor=axes[2]), int(np.prod(axes)))
    # float32 rounding of sums taken in another order, over six optimizer steps.
    np.testing.assert_allclose(curve, single[0], rtol=2e-5)
    for mine, reference in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(single[1].params), strict=True
    ):
        # Adam turns a rounding difference of a tiny gradient into a step of up to lr = 1e-3.
        np.testing.assert_allclose(mine, reference, atol=5e-4)


def test_micro_batches_give_the_whole_batch(single):
    train = dataclasses.replace(EXPERIMENT.train, accumulate=4)
    curve, _ = run(MeshConfig(data=2), 2, dataclasses.replace(EXPERIMENT, train=train))
    np.testing.assert_allclose(curve, single[0], rtol=2e-5)


def test_parameters_and_moments_are_really_sharded():
    _, state = run(MeshConfig(data=2, fsdp=2, tensor=2), 8, steps=1)
    inner = state.opt_state.inner_state[1][0]
    for tree in (state.params, inner.mu, inner.nu):
        weight = tree["nt/block/ffn/fc1"]["w"]
        assert weight.sharding.spec == P(None, "fsdp", "tensor")
        assert weight.addressable_shards[0].data.size * 4 == weight.size
        embedding = tree["nt/embed/token"]["embeddings"]
        assert embedding.addressable_shards[0].data.size * 2 == embedding.size


def test_bfloat16_compute_keeps_parameters_moments_and_updates_float32():
    model = dataclasses.replace(EXPERIMENT.model, compute_dtype="bfloat16")
    _, state = run(MeshConfig(), 1, dataclasses.replace(EXPERIMENT, model=model), steps=1)
    floats = [x for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.inexact)]
    assert {str(x.dtype) for x in floats} == {"float32"}


def test_the_data_axis_takes_the_devices_that_are_left():
    mesh = sharding.make_mesh(MeshConfig(data=-1, tensor=2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 2}


def test_wrong_meshes_and_batches_are_refused():
    with pytest.raises(ConfigError, match="does not cover the 8 devices"):
        sharding.make_mesh(MeshConfig(data=3))
    with pytest.raises(ConfigError, match="at most one is -1"):
        sharding.make_mesh(MeshConfig(data=-1, fsdp=-1))
    mesh = sharding.make_mesh(MeshConfig(data=-1))
    with pytest.raises(ConfigError, match=r"global_batch=12 .* nearest: 16"):
        sharding.check_batch(12, 1, mesh)
    with pytest.raises(ConfigError, match="no sharding rule for parameter 'nt/novel/w'"):
        sharding.parameter_spec("nt/novel/w", (4, 4), mesh)
