"""Sharding changes speed, not results: loss, gradients and masks on eight fake devices."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nt_jax import sharding
from nt_jax.config import (
    ConfigError,
    DataConfig,
    Experiment,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)
from nt_jax.plan import compiler
from nt_jax.program import abstract_tokens, build
from nt_jax.tokenizers import KmerTokenizer

TOKENIZER = KmerTokenizer(k=3, vocabulary="v2")
EXPERIMENT = Experiment(
    name="sharding",
    tokenizer=TokenizerConfig(k=3),
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


def run(mesh: MeshConfig, devices: int, experiment: Experiment = EXPERIMENT, steps=6):
    """Loss curve, gradient norms and final state of a few steps on a mesh."""
    experiment = dataclasses.replace(experiment, mesh=mesh)
    program = build(experiment, jax.devices()[:devices])
    state = program.init(np.uint32(0))
    curve = []
    for number in range(steps):
        batch = jax.device_put(tokens(number), program.batch_sharding)
        state, metrics = program.train_step(state, batch)
        curve.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(curve), state


@pytest.fixture(scope="module")
def single():
    return run(MeshConfig(), 1)


MESHES = (
    {"data": 8},
    {"slices": 2, "data": 2, "fsdp": 2},
    {"data": 2, "fsdp": 4},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 1, "tensor": 4},
    {"data": 1, "sequence": 4},
    {"data": 1, "fsdp": 2, "sequence": 2, "tensor": 2},
)


def devices_of(axes: dict[str, int]) -> int:
    return int(np.prod(list(axes.values())))


@pytest.mark.parametrize("axes", MESHES, ids=str)
def test_every_mesh_gives_the_single_device_curve(axes, single):
    curve, state = run(MeshConfig(**axes), devices_of(axes))
    # float32 rounding of sums taken in another order, over six optimizer steps.
    np.testing.assert_allclose(curve, single[0], rtol=2e-5)
    for mine, reference in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(single[1].params), strict=True
    ):
        # Adam turns a rounding difference of a tiny gradient into a step of up to lr = 1e-3.
        np.testing.assert_allclose(mine, reference, atol=5e-4)


@pytest.mark.parametrize("axes", [{"data": 2}, {"data": 2, "fsdp": 2}], ids=str)
def test_micro_batches_give_the_whole_batch(axes, single):
    train = dataclasses.replace(EXPERIMENT.train, accumulate=4)
    experiment = dataclasses.replace(EXPERIMENT, train=train)
    curve, _ = run(MeshConfig(**axes), devices_of(axes), experiment)
    np.testing.assert_allclose(curve, single[0], rtol=2e-5)


def test_a_model_without_gates_and_with_recomputation_is_sharded_the_same(single):
    model = dataclasses.replace(
        EXPERIMENT.model, ffn_gated=False, ffn_bias=True, positions="learned", remat="full"
    )
    experiment = dataclasses.replace(EXPERIMENT, model=model)
    expected, _ = run(MeshConfig(), 1, experiment)
    assert abs(expected - single[0]).max() > 1e-3
    curve, _ = run(MeshConfig(data=1, fsdp=2, tensor=2), 4, experiment)
    np.testing.assert_allclose(curve, expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("mesh", "devices", "sums_over_both"),
    [(MeshConfig(), 1, False), (MeshConfig(data=2), 2, False), (MeshConfig(sequence=2), 2, True)],
)
def test_cpus_sum_gradients_of_weights_over_one_axis_of_tokens(mesh, devices, sums_over_both):
    """But for windows that are split over devices: there one axis of tokens would be gathered."""
    experiment = dataclasses.replace(EXPERIMENT, mesh=mesh)
    program = build(experiment, jax.devices()[:devices])
    text = program.train_step.lower(program.abstract, abstract_tokens(program, experiment))
    assert ("contracting_dims = [0, 1] x [0, 1]" in text.as_text()) == sums_over_both


def test_validation_gives_the_same_rows_on_every_mesh():
    rows = tokens(0)
    arguments = rows, np.arange(16) < 13, np.arange(16, dtype=np.int32)
    found = []
    for axes in ({"data": 1}, {"data": 2, "fsdp": 2, "tensor": 2}, {"slices": 2, "sequence": 2}):
        experiment = dataclasses.replace(EXPERIMENT, mesh=MeshConfig(**{"data": 1} | axes))
        program = build(experiment, jax.devices()[: devices_of(axes)])
        params = program.init(np.uint32(0)).params
        placed = [jax.device_put(x, program.batch_sharding) for x in arguments]
        unigram = np.full(TOKENIZER.vocab_size, -4.0, np.float32)
        found.append(program.eval_step(params, *placed, unigram))
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), other, found[0])


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
    assert dict(mesh.shape) == {"slices": 1, "data": 4, "fsdp": 1, "sequence": 1, "tensor": 2}


LINES = """
from jax.experimental import topologies
from nt_jax import sharding
from nt_jax.config import MeshConfig

chips = topologies.get_topology_desc(platform="tpu", topology_name="v6e:8x8").devices
mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=32), list(chips))
for half in mesh.devices.reshape(2, 32):
    print(*sorted(len({chip.coords[axis] for chip in half}) for axis in (0, 1)))
"""


def test_an_axis_may_be_part_of_a_dimension_of_the_torus():
    """32 of 8 x 8 chips: two halves of 4 x 8."""
    done = subprocess.run(
        [sys.executable, "-c", LINES],
        env=compiler.tpu_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["4", "8"] * 2, done.stderr


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
