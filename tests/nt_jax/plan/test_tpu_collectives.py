"""What libtpu makes of the FSDP and of the tensor-parallel program, against counting by hand."""

import dataclasses
import math

import jax
import pytest

from nt_jax.config import (
    DataConfig,
    Experiment,
    MeshConfig,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
)
from nt_jax.model.factory import build_model
from nt_jax.plan import compiler, hlo, topology
from nt_jax.plan.collectives import Collective, collectives

LAYERS, WIDTH, TOKENS, BATCH = 3, 512, 512, 16
V1 = ModelConfig(
    num_layers=LAYERS, num_heads=8, embed_dim=WIDTH, ffn_dim=4 * WIDTH, max_positions=TOKENS,
    positions="learned", ffn_gated=False, ffn_activation="gelu", ffn_bias=True,
    compute_dtype="bfloat16", remat="full",
)  # fmt: skip
SCALARS = 2000
"""Bytes, at the most, of counts and of the loss, and of a bias that libtpu sends in bfloat16."""

pytestmark = pytest.mark.slow


def on_four_chips(mesh: MeshConfig, model: ModelConfig, cache) -> list[Collective]:
    experiment = Experiment(
        name="small",
        model=model,
        data=DataConfig(sequence_length=TOKENS),
        train=TrainConfig(steps=10, global_batch=BATCH),
        mesh=mesh,
    )
    compiled = compiler.compile_step(experiment, topology.parse("v5e-4"), cache)
    assert compiled.program
    return collectives(hlo.parse(compiled.program), compiled.mesh)


def parameters(model: ModelConfig) -> dict[str, int]:
    """Elements of every parameter."""
    built = build_model(model, TokenizerConfig().make())
    params = jax.eval_shape(built.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape)
        for path, leaf in leaves
    }


def test_fsdp_gathers_weights_once_a_pass_and_scatters_gradients_once(tmp_path):
    gated = dataclasses.replace(V1, ffn_gated=True, ffn_activation="swish", ffn_bias=False)
    found = on_four_chips(MeshConfig(data=1, fsdp=4), gated, tmp_path)
    assert {one.axes for one in found} == {("fsdp",)}
    assert {one.kind for one in found} == {"all-gather", "reduce-scatter", "all-reduce"}

    size = parameters(gated)
    blocks = {name for name in size if "/block/" in name and name.endswith("/w")}
    heads = {name for name in size if name.endswith("/w")} - blocks
    tables = {name for name in size if name.endswith("/embeddings")}
    assert (len(blocks), len(heads), len(tables)) == (6, 2, 2)
    gathers = [one for one in found if one.kind == "all-gather"]
    # The weights of blocks in bfloat16, forward and, behind remat, backward.
    assert sum(one.count for one in gathers) == 2 * 6 * LAYERS + len(heads) + len(tables)
    assert sum(one.bytes for one in gathers) == (
        2 * 2 * sum(size[name] for name in blocks)
        + 2 * sum(size[name] for name in heads)
        + 4 * sum(size[name] for name in tables)
    )
    # Gradients of what is gathered are scattered, the small rest is summed; each once.
    sums = {one.kind: one.bytes for one in found}
    matrices = 2 * sum(size[name] for name in blocks | heads) + 4 * sum(size[n] for n in tables)
    rest = 4 * sum(size[name] for name in size.keys() - blocks - heads - tables)
    assert sums["reduce-scatter"] == matrices
    assert sums["all-reduce"] == pytest.approx(rest, abs=SCALARS)


def test_tensor_sums_activations_twice_a_pass_and_once_more_for_remat(tmp_path):
    found = on_four_chips(MeshConfig(data=1, tensor=4), V1, tmp_path)
    assert {one.axes for one in found} == {("tensor",)}
    # Forward behind the attention and behind the feed-forward, backward in front of both, and
    # the first once more: what is recomputed ends before the second.
    activations = 2 * BATCH * TOKENS * WIDTH
    sums = [one for one in found if one.kind == "all-reduce"]
    assert 0 <= sum(one.bytes for one in sums) - 5 * LAYERS * activations < SCALARS
    assert sum(one.count for one in sums) == 5 * LAYERS + 2
    # No activation and no weight is gathered: what is left are biases and norms.
    others = sum(one.bytes for one in found if one.kind != "all-reduce")
    size = parameters(V1)
    vectors = sum(size[name] for name in size if name.endswith(("/b", "/scale", "/offset")))
    assert others <= 3 * 4 * vectors
