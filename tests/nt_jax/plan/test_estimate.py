"""Memory and FLOPs by formula, against the real program."""

import dataclasses
import json
import math
import pathlib

import jax
import pytest

from nt_jax import program, registry
from nt_jax.config import ConfigError, DataConfig, Experiment, MeshConfig, ModelConfig, TrainConfig
from nt_jax.plan import estimate, hlo, search, topology
from nt_jax.plan.work import work

RESULTS = pathlib.Path(__file__).resolve().parents[3] / "benchmarks" / "results"
COMPILED = json.loads((RESULTS / "gpu_step.json").read_text())
TINY = Experiment(
    name="tiny",
    model=ModelConfig(num_layers=3, num_heads=4, embed_dim=64, ffn_dim=128, max_positions=128),
    data=DataConfig(sequence_length=128),
    train=TrainConfig(global_batch=16),
)


def on(mesh: MeshConfig, **train: int) -> Experiment:
    return dataclasses.replace(TINY, mesh=mesh, train=dataclasses.replace(TINY.train, **train))


@pytest.mark.parametrize(
    "mesh", [MeshConfig(), MeshConfig(data=2, fsdp=4), MeshConfig(data=1, fsdp=2, tensor=4)]
)
def test_the_state_is_what_the_program_keeps(mesh):
    built = program.build(on(mesh))
    bytes_ = sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(built.abstract)
    )
    assert estimate.memory(TINY, dict(built.mesh.shape), "cpu").state == bytes_


def test_flops_by_formula_are_those_of_the_compiled_program():
    built = program.build(on(MeshConfig()))
    tokens = program.abstract_tokens(built, TINY)
    text = built.train_step.lower(built.abstract, tokens).compile().as_text()
    executed = 8 * sum(one.times * one.flops for one in work(hlo.parse(text)))
    # The formula leaves out what is no matrix product of the model (gathers as products).
    assert executed == pytest.approx(estimate.flops_per_step(TINY), rel=0.05)


@pytest.mark.parametrize(
    "row",
    [row for row in COMPILED if not row["looped"]],
    ids=lambda row: "-".join(str(row[key]) for key in ("case", "remat", "attention")),
)
def test_memory_on_a_gpu_is_near_that_of_the_compiled_program(row):
    """benchmarks/gpu_step.py compiled the same for one H200; the formula plans GPU meshes."""
    experiment = registry.find_experiment(row["case"])
    model = dataclasses.replace(experiment.model, remat=row["remat"], attention=row["attention"])
    train = dataclasses.replace(experiment.train, global_batch=row["batch"], accumulate=1)
    experiment = dataclasses.replace(experiment, model=model, train=train, mesh=MeshConfig())
    sizes = estimate.mesh_sizes(experiment, topology.parse("h200-1"))
    found = estimate.memory(experiment, sizes, "gpu").total
    assert 0.9 < found / row["peak_bytes"] < 1.25


def test_more_micro_batches_and_more_remat_keep_less():
    mesh = dict.fromkeys(("slices", "data", "fsdp", "sequence", "tensor"), 1)
    whole, halves = (estimate.memory(on(MeshConfig(), accumulate=n), mesh, "cpu") for n in (1, 2))
    assert halves.activations == whole.activations / 2
    kept = [
        estimate.memory(
            dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, remat=remat)),
            mesh,
            "cpu",
        ).activations
        for remat in ("none", "dots", "full")
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[2] > 0


def test_a_mesh_that_does_not_divide_is_refused_by_name():
    with pytest.raises(ConfigError, match="does not cover its 16 devices"):
        estimate.mesh_sizes(on(MeshConfig(fsdp=3)), topology.parse("v5e-16"))
    with pytest.raises(ConfigError, match="does not divide"):
        estimate.mesh_sizes(on(MeshConfig(fsdp=32)), topology.parse("v5e-32"))
    with pytest.raises(ConfigError, match=r"set --mesh\.slices 2"):
        estimate.mesh_sizes(on(MeshConfig()), topology.parse("v5e-4x2"))


def test_every_candidate_of_a_search_is_the_same_run_and_can_be_built():
    where = topology.parse("v5e-8")
    found = list(search.candidates(TINY, where))
    shapes = {(one.mesh, one.train.accumulate, one.model.remat) for one in found}
    assert len(shapes) == len(found) > 20
    for one in found:
        assert one.train.global_batch == TINY.train.global_batch
        assert math.prod(estimate.mesh_sizes(one, where).values()) == 8
        assert search.reshaped(one, TINY.mesh, 1, "none") == TINY
