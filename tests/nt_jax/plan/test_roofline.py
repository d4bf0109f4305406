"""Time from work and collectives: it grows with each, and shrinks with faster hardware."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.plan import topology
from nt_jax.plan.collectives import Collective, sent_share
from nt_jax.plan.roofline import collective_seconds, link_rate, times
from nt_jax.plan.work import Work

MESH = {"slices": 1, "data": 1, "fsdp": 16, "sequence": 1, "tensor": 1}
numbers = st.floats(0, 1e15)


def gather(size: float, hidden: bool = False, kind: str = "all-gather") -> Collective:
    return Collective(kind, ("fsdp",), 16, 10, size, size * sent_share(kind, 16), hidden)


def step(name: str, work: Work, exchanged: Collective) -> float:
    return times(topology.parse(name), "bfloat16", [work], [exchanged], MESH).step


@given(numbers, numbers, numbers, st.floats(1.01, 10), st.sampled_from(["v5e-16", "h200-16"]))
def test_more_of_anything_takes_no_less_time(flops, size, sent, factor, name):
    base = step(name, Work(3, flops, size, 0), gather(sent))
    assert step(name, Work(3, flops * factor, size, 0), gather(sent)) >= base
    assert step(name, Work(3, flops, size * factor, 0), gather(sent)) >= base
    assert step(name, Work(3, flops, size, 0), gather(sent * factor)) >= base


@given(numbers, numbers, numbers)
def test_no_step_is_faster_than_its_parts_alone(flops, size, sent):
    found = times(
        topology.parse("v5e-16"), "bfloat16", [Work(1, flops, size, 0)], [gather(sent)], MESH
    )
    assert found.step >= max(found.compute, found.memory) * (1 - 1e-9)


def test_matrix_products_at_the_peak_take_the_data_sheets_time():
    found = times(topology.parse("v5e-16"), "bfloat16", [Work(2, 197e12, 0.0, 0)], [], MESH)
    assert found.compute == pytest.approx(2.0)
    assert found.step == pytest.approx(2.0 / 0.65)


def test_the_compilers_cycles_count_where_they_are_longer():
    work = Work(1, 197e12, 0.0, 3_000_000_000)
    assert times(topology.parse("v5e-16"), "bfloat16", [work], [], MESH).step == pytest.approx(2.0)


def test_asynchronous_collectives_hide_behind_the_chips_work():
    work = Work(1, 197e12, 0.0, 0)
    loud, quiet = (step("v5e-16", work, gather(1e10, hidden)) for hidden in (False, True))
    assert loud > quiet
    assert quiet == step("v5e-16", work, gather(0.0, hidden=True))


def test_an_all_reduce_sends_twice_what_a_reduce_scatter_sends():
    where = topology.parse("v5e-16")
    reduce, scatter = (
        collective_seconds(where, dataclasses.replace(gather(1e12, kind=kind), count=0), MESH)[0]
        for kind in ("all-reduce", "reduce-scatter")
    )
    assert reduce == pytest.approx(2 * scatter)


def test_rings_carry_twice_what_lines_carry():
    # 4x4 chips of v5e do not wrap around; 16x16 do. Cubes of v5p do, less than a cube does not.
    assert link_rate(topology.parse("v5e-16"), 16)[0] == 2 * 50e9
    assert link_rate(topology.parse("v5e-256"), 256)[0] == 4 * 50e9
    assert link_rate(topology.parse("v5p-64"), 32)[0] == 3 * 100e9
    assert link_rate(topology.parse("v5p-128"), 64)[0] == 6 * 100e9
    assert link_rate(topology.parse("v5e-16"), 4)[0] == 50e9


def test_slices_exchange_their_shares_over_the_network():
    where = topology.parse("v5e-16x2")
    mesh = {**MESH, "slices": 2}
    whole = Collective("all-reduce", ("slices", "fsdp"), 32, 1, 1e9, 2e9 * 31 / 32, False)
    inside, between = collective_seconds(where, whole, mesh)
    assert inside > 0
    assert between == pytest.approx(2e9 * 31 / 32 / 16 / (3.125e9 * 0.85), rel=0.01)


def test_gpus_of_one_host_do_not_need_the_network():
    where = topology.parse("h200-16")
    mesh = {**MESH, "data": 2, "fsdp": 8}
    near = Collective("all-gather", ("fsdp",), 8, 1, 1e9, 1e9 * 7 / 8, False)
    far = Collective("all-gather", ("data",), 2, 1, 1e9, 1e9 / 2, False)
    assert collective_seconds(where, near, mesh)[1] == 0
    assert collective_seconds(where, far, mesh)[1] > 0
