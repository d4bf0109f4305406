"""Programs as text: recorded pieces of TPU programs, and real programs of this machine."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.plan import hlo
from nt_jax.plan.collectives import collectives, members, mesh_axes
from nt_jax.plan.work import work

AXES = {"data": 2, "fsdp": 4}

# From a train step that libtpu 0.0.51 compiled for v5e: a loop without a stated trip count, an
# all-gather spread over three fusions, a reduce-scatter written as all-reduce and slice.
TPU = """
HloModule jit_step, is_scheduled=true

%condition.1 (p.1: (s32[], bf16[4,8])) -> pred[] {
  %p.1 = (s32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %constant.9 = s32[]{:T(128)} constant(12)
  %get-tuple-element.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.9), direction=LT
}

%fused.start (param.1: bf16[1,256,128]) -> bf16[4,256,128] {
  %param.1 = bf16[1,256,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.110 = bf16[4,256,128]{2,1,0:T(8,128)(2,1)} all-gather(%param.1), channel_id=19, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="0"}
}

%async_collective_fusion.1 (param.2: bf16[1,256,128]) -> bf16[4,256,128] {
  %param.2 = bf16[1,256,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.112 = bf16[4,256,128]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%param.2), channel_id=19, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="0"}
}

%all-reduce-scatter.4 (input.9: bf16[128,8,128]) -> bf16[32,8,128] {
  %input.9 = bf16[128,8,128]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-reduce.111 = bf16[128,8,128]{2,1,0:T(8,128)(2,1)} all-reduce(%input.9), channel_id=42, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %partition-id.38 = u32[] partition-id()
  %constant.2 = u32[] constant(0)
  ROOT %dynamic-slice.577 = bf16[32,8,128]{2,1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.111, %partition-id.38, %constant.2, %constant.2), dynamic_slice_sizes={32,8,128}
}

%body.1 (p.2: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p.2 = (s32[]{:T(128)}, bf16[1,256,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %counter = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %shard = bf16[1,256,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p.2), index=1
  %fusion.1 = bf16[4,256,128]{2,1,0:T(8,128)(2,1)S(1)} fusion(%shard), kind=kCustom, calls=%fused.start
  %fusion.2 = bf16[4,256,128]{2,1,0:T(8,128)(2,1)S(1)} fusion(%shard), kind=kCustom, calls=%async_collective_fusion.1, backend_config={"window_config":{"estimated_cycles":"1500"}}
  %fusion.3 = bf16[32,8,128]{2,1,0:T(8,128)(2,1)S(1)} fusion(%fusion.2), kind=kCustom, calls=%all-reduce-scatter.4
  %permute-start = (bf16[3,8]{1,0}, bf16[3,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%shard), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}
  %permute-done = bf16[3,8]{1,0} collective-permute-done(%permute-start)
  ROOT %out = (s32[]{:T(128)}, bf16[1,256,128]{2,1,0:T(8,128)(2,1)}) tuple(%counter, %shard)
}

ENTRY %main (a: bf16[1,256,128]) -> bf16[1,256,128] {
  %a = bf16[1,256,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %state = (s32[]{:T(128)}, bf16[1,256,128]{2,1,0:T(8,128)(2,1)}) tuple(%zero, %a)
  %while.1 = (s32[]{:T(128)}, bf16[1,256,128]{2,1,0:T(8,128)(2,1)}) while(%state), condition=%condition.1, body=%body.1
  ROOT %result = bf16[1,256,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_collectives_of_a_tpu_program_count_once_a_round_of_the_loop():
    found = {one.kind: one for one in collectives(hlo.parse(TPU), AXES)}
    assert {kind: one.count for kind, one in found.items()} == {
        "all-gather": 12,
        "reduce-scatter": 12,
        "collective-permute": 12,
    }
    array = 4 * 256 * 128 * 2
    assert found["all-gather"].bytes == 12 * array
    assert found["all-gather"].sent == 12 * array * 3 / 4
    assert found["reduce-scatter"].bytes == 12 * array
    assert {one.axes for one in found.values()} == {("fsdp",)}
    assert found["all-gather"].hidden
    assert not found["reduce-scatter"].hidden


def test_cycles_of_the_tpu_compiler_are_read_with_their_rounds():
    assert [(one.times, one.cycles) for one in work(hlo.parse(TPU)) if one.cycles] == [(12, 1500)]


def test_a_loop_that_starts_later_runs_less_often():
    text = TPU.replace("%zero = s32[]{:T(128)} constant(0)", "%zero = s32[]{:T(128)} constant(2)")
    assert {one.count for one in collectives(hlo.parse(text), AXES)} == {10}


def test_a_loop_without_a_bound_is_an_error_and_not_a_guess():
    text = TPU.replace("direction=LT", "direction=NE")
    with pytest.raises(ValueError, match=r"how often does the loop while\.1 run"):
        collectives(hlo.parse(text), AXES)


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("nothing here")


@pytest.mark.parametrize(
    ("attributes", "group", "axes"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", [0, 1, 2, 3], ("fsdp",)),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", [0, 4], ("data",)),
        ("replica_groups={}", list(range(8)), ("data", "fsdp")),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3], ("fsdp",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4], ("data",)),
        ("replica_groups=[1,8]<=[8]", list(range(8)), ("data", "fsdp")),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", [0, 4], ("data",)),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", [0, 4], ("data",)),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", [0, 1, 2, 3], ("fsdp",)),
        (
            "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}",
            [0, 4],
            ("data",),
        ),
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", [0, 1], ()),
        ("source_target_pairs={{0,0},{1,5},{5,1}}", [1, 5], ("data",)),
        ("source_target_pairs={{0,0},{1,1}}", [], ()),
    ],
)
def test_groups_of_every_spelling_are_named_by_mesh_axes(attributes, group, axes):
    assert members(attributes, 8) == group
    if group:
        assert mesh_axes(group, AXES) == axes


def test_an_unknown_spelling_of_groups_is_an_error():
    with pytest.raises(ValueError, match="which devices take part"):
        members("replica_groups=galaxy", 8)


def _mesh():
    return jax.make_mesh((2, 4), tuple(AXES), (AxisType.Auto,) * 2)


def _compiled(function, *arguments):
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_real_program_with_known_collectives():
    mesh = _mesh()

    def rounds(x):
        def body(carry, _):
            whole = jax.lax.all_gather(carry, "fsdp", tiled=True)
            part = jax.lax.psum_scatter(jnp.sin(whole), "fsdp", tiled=True)
            return jax.lax.psum(part, "data"), None

        return jax.lax.scan(body, x, length=5)[0]

    mapped = jax.shard_map(rounds, mesh=mesh, in_specs=P("fsdp"), out_specs=P("fsdp"))
    x = jax.ShapeDtypeStruct((4096,), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))
    found = {one.kind: one for one in collectives(_compiled(mapped, x), AXES)}
    whole = 4096 * 4
    assert {kind: (one.count, one.axes, one.bytes) for kind, one in found.items()} == {
        "all-gather": (5, ("fsdp",), 5 * whole),
        "reduce-scatter": (5, ("fsdp",), 5 * whole),
        "all-reduce": (5, ("data",), 5 * whole / 4),
    }
    assert found["all-reduce"].sent == 5 * whole / 4


def test_flops_of_a_real_program_are_those_of_its_products():
    def layers(x, w):
        x, _ = jax.lax.scan(lambda carry, one: (jnp.tanh(carry @ one), None), x, w)
        return jnp.einsum("btk,bsk->bts", x, x)

    x = jax.ShapeDtypeStruct((4, 32, 64), jnp.float32)
    w = jax.ShapeDtypeStruct((7, 64, 64), jnp.float32)
    found = work(_compiled(layers, x, w))
    expected = 7 * 2 * 4 * 32 * 64 * 64 + 2 * 4 * 32 * 32 * 64
    assert sum(one.times * one.flops for one in found) == expected


def test_a_batched_product_of_a_tpu_counts_its_batch_once():
    # What libtpu makes of [4,256,32] x [4,256,32] -> [4,256,256]: the batch is a dilated window.
    text = """
ENTRY %main (a: bf16[4,256,32], b: bf16[4,256,32]) -> f32[4,256,256] {
  %a = bf16[4,256,32]{2,1,0} parameter(0)
  %b = bf16[4,256,32]{2,1,0} parameter(1)
  ROOT %c = f32[4,256,256]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf
}
"""  # noqa: E501
    (only,) = work(hlo.parse(text))
    assert only.flops == 2 * 4 * 256 * 256 * 32
    assert only.bytes == 2 * (4 * 256 * 32 * 2) + 4 * 256 * 256 * 4


def test_traffic_of_a_loop_is_that_of_its_slices():
    def last(stack):
        total = jnp.zeros(stack.shape[1:])
        return jax.lax.fori_loop(0, len(stack), lambda i, t: jnp.cos(t + stack[i]), total)

    stack = jax.ShapeDtypeStruct((64, 65_536), jnp.float32)
    moved = sum(one.times * one.bytes for one in work(_compiled(last, stack)))
    row = 65_536 * 4
    # Each round reads a row of the stack and the total, and writes the total (once or twice).
    assert 64 * 3 * row <= moved <= 64 * 6 * row


def test_text_of_programs_names_every_opcode():
    module = _compiled(lambda x: jnp.sort(x) @ x, jax.ShapeDtypeStruct((64,), jnp.float32))
    for computation in module.computations.values():
        for instruction in computation.instructions:
            assert re.fullmatch(r"[a-z][a-z0-9-]*", instruction.opcode)
            known = computation.by_name
            assert all(name in known for name in instruction.operands)


@pytest.mark.parametrize(
    ("name", "target", "dims", "products", "filled"),
    [
        ("splash_mha_fwd_no_batch.3", "tpu_custom_call", "8,{},32", 2, 0.25),
        ("splash_mha_fwd_segmented.3", "tpu_custom_call", "2,4,{},32", 2, 0.25),
        ("splash_mha_dkv_segmented.8", "tpu_custom_call", "2,4,{},32", 5, 0.25),
        ("custom-call.1", "__cudnn$fmhaSoftmax", "2,{},4,32", 2, 1.0),
        ("custom-call.2", "__cudnn$fmhaSoftmaxBackward", "2,{},4,32", 5, 1.0),
    ],
)
def test_attention_kernels_count_their_products(name, target, dims, products, filled):
    # A kernel's attributes take several lines, the last of which begins like the end of a body.
    query, key = dims.format(256), dims.format(512)
    text = f"""
ENTRY %main (q: bf16[{query}], k: bf16[{key}]) -> bf16[{query}] {{
  %mask = s8[1,4,1]{{2,1,0}} constant({{...}})
  %q = bf16[{query}]{{3,2,1,0}} parameter(0)
  %k = bf16[{key}]{{3,2,1,0}} parameter(1)
  %{name} = (bf16[{query}]{{3,2,1,0}}) custom-call(%mask, %q, %k, %k), custom_call_target="{target}", frontend_attributes={{kernel_metadata={{
"xprof_metadata":"{{}}"
}}}}, metadata={{op_name="attention"}}
  ROOT %out = bf16[{query}]{{3,2,1,0}} get-tuple-element(%{name}), index=0
}}
"""  # noqa: E501
    module = hlo.parse(text)
    assert [one.opcode for one in module.computations["main"].instructions][-1] == (
        "get-tuple-element"
    )
    (only,) = [one for one in work(module) if one.flops]
    assert only.flops == products * 2 * 2 * 4 * 256 * 512 * 32
    assert only.filled == filled
