"""What libtpu makes of a step: the attention kernel, no scores, no logits of all tokens."""

import dataclasses

import pytest

from nt_jax.config import DataConfig, Experiment, MeshConfig, ModelConfig, TrainConfig
from nt_jax.masking import budget
from nt_jax.plan import compiler, hlo, topology

LAYERS, HEADS, TOKENS, BATCH, VOCABULARY = 3, 8, 1024, 32, 4107
DENSE = Experiment(
    name="small",
    model=ModelConfig(
        num_layers=LAYERS, num_heads=HEADS, embed_dim=512, ffn_dim=2048, max_positions=TOKENS,
        compute_dtype="bfloat16", remat="dots", attention="dense",
    ),
    data=DataConfig(sequence_length=TOKENS),
    train=TrainConfig(steps=10, global_batch=BATCH),
    mesh=MeshConfig(data=2, tensor=2),
)  # fmt: skip
FASTEST = dataclasses.replace(DENSE, model=dataclasses.replace(DENSE.model, attention="fastest"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """{experiment: what the compiler made of it on four chips}."""
    cache = tmp_path_factory.mktemp("cache")
    where = topology.parse("v5e-4")
    return {one: compiler.compile_step(one, where, cache) for one in (DENSE, FASTEST)}


def shapes(program):
    """Dimensions of every array of a program that is laid out: not of those inside of fusions."""
    module = hlo.parse(program)
    for item in hlo.executed(module):
        for buffer in item.instruction.buffers:
            yield buffer.dims


def test_the_kernel_runs_twice_forward_and_once_backward_a_layer(compiled):
    executed = list(hlo.executed(hlo.parse(compiled[FASTEST].program)))
    kernels = {
        name: sum(one.times for one in executed if one.instruction.name.startswith(name))
        for name in ("splash_mha_fwd", "splash_mha_dkv", "splash_mha_dq")
    }
    assert kernels == {"splash_mha_fwd": 2 * LAYERS, "splash_mha_dkv": LAYERS, "splash_mha_dq": 0}


def test_no_scores_are_laid_out(compiled):
    square = (TOKENS, TOKENS)
    assert any(dims[-2:] == square for dims in shapes(compiled[DENSE].program))
    assert not any(dims[-2:] == square for dims in shapes(compiled[FASTEST].program))


def test_logits_are_those_of_selected_tokens(compiled):
    selected = BATCH // 2 * budget(TOKENS, 0.15)
    for one in compiled.values():
        rows = [
            dims
            for dims in shapes(one.program)
            if any(size in (VOCABULARY, 4224) for size in dims) and 512 not in dims
        ]
        elements = [int(hlo.Buffer("f32", dims, 0).elements) for dims in rows]
        assert selected * VOCABULARY <= max(elements) <= selected * 4224


def test_memory_is_lower_by_the_scores(compiled):
    scores = BATCH // 2 * HEADS // 2 * TOKENS * TOKENS * (4 + 2)
    assert compiled[DENSE].peak - compiled[FASTEST].peak > 0.5 * scores
