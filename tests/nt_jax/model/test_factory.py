"""The pure functions of a model: dtypes, shapes, options that must change nothing, refusals."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.config import ConfigError
from nt_jax.errors import InputError
from nt_jax.model import factory, layers
from tests.nt_jax.model.conftest import (
    V1,
    V2,
    batch,
    build_model,
    library_attention,
    outputs,
    parameters,
)


@pytest.fixture(scope="module", params=[V1, V2], ids=["v1", "v2"])
def config(request):
    return request.param


@pytest.fixture(scope="module")
def params(config, tokenizer):
    return parameters(config, tokenizer)


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return batch(tokenizer, (12, 9))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_logits_are_float32_in_any_compute_dtype(config, tokenizer, tokens, dtype):
    model = build_model(dataclasses.replace(config, compute_dtype=dtype), tokenizer)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"float32"}
    hidden = jax.eval_shape(model.encode, params, tokens)
    assert hidden.dtype == dtype
    assert jax.eval_shape(model.head, params, hidden).dtype == jnp.float32

    def loss(params):
        return jnp.sum(model.head(params, model.encode(params, tokens)))

    gradients = jax.eval_shape(jax.grad(loss), params)
    assert {str(x.dtype) for x in jax.tree.leaves(gradients)} == {"float32"}


def test_bfloat16_follows_float32(tokenizer, tokens):
    half = build_model(dataclasses.replace(V2, compute_dtype="bfloat16"), tokenizer)
    exact = outputs(V2, tokenizer, tokens)["logits"]
    error = np.abs(half.apply(parameters(V2, tokenizer), tokens)["logits"] - exact)
    assert 0 < error.max() < 0.1 * np.abs(exact).max()


def test_docstring_lists_every_parameter_with_its_shape(config, tokenizer):
    table = re.findall(r"^\| (nt/\S+) \| (\[.*\]) \|", factory.__doc__, re.MULTILINE)
    sizes = {
        "V": tokenizer.vocab_size,
        "D": config.embed_dim,
        "L": config.num_layers,
        "A": config.num_heads * config.head_size,
        "F": config.ffn_dim,
        "C": config.ffn_dim * (2 if config.ffn_gated else 1),
        "P": config.max_positions + tokenizer.pad_id + 1,
    }
    listed = {}
    for path, shapes in table:
        shapes = re.findall(r"\[([^\]]*)\]", shapes)
        head, _, names = path.rpartition("/")
        modules = re.fullmatch(r"(.*)\{(.*)\}", head)
        modules = [modules[1] + m for m in modules[2].split(",")] if modules else [head]
        names = names.strip("{}").split(",")
        for module in modules:
            for i, name in enumerate(names):
                shape = shapes[i] if len(shapes) > 1 else shapes[0]
                listed[module, name] = tuple(sizes[d.strip()] for d in shape.split(","))
    abstract = jax.eval_shape(build_model(config, tokenizer).init, jax.random.key(0))
    built = {(m, n): x.shape for m, named in abstract.items() for n, x in named.items()}
    assert built.items() <= listed.items()
    optional = listed.keys() - built.keys()
    assert all("position" in m or "embed/norm" in m or n == "b" for m, n in optional)


def test_initialisation_is_the_published_one(tokenizer):
    wide = dataclasses.replace(V1, embed_dim=64, ffn_dim=256)
    params = build_model(wide, tokenizer).init(jax.random.key(0))
    limit = np.sqrt(3 * 2 / 64)
    for name in ("query", "key", "value", "out"):
        for array in params[f"nt/block/attention/{name}"].values():
            assert 0.95 * limit < np.abs(array).max() <= limit
    for name, fan_in in {"nt/block/ffn/fc1": 64, "nt/block/ffn/fc2": 256}.items():
        # A normal truncated at two standard deviations keeps 88 % of its deviation; Haiku
        # corrects for that in VarianceScaling only.
        assert np.std(params[name]["w"]) == pytest.approx(0.88 * fan_in**-0.5, rel=0.05)
        assert not np.any(params[name]["b"])
    layers = params["nt/block/attention/query"]["w"]
    assert not np.array_equal(layers[0], layers[1])


def test_same_key_same_parameters(tokenizer):
    init = build_model(V2, tokenizer).init
    first, again, other = (init(jax.random.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not np.array_equal(*(p["nt/head/logits"]["w"] for p in (first, other)))


def test_options_do_not_change_the_logits(tokenizer, tokens):
    model, params = build_model(V2, tokenizer), parameters(V2, tokenizer)
    full = outputs(V2, tokenizer, tokens)
    assert set(full["embeddings"]) == set(full["attention"]) == {1, 2}
    plain, second = (model.apply(params, tokens, **o) for o in ({}, {"layers": (2, 1)}))
    assert plain["embeddings"] == plain["attention"] == second["attention"] == {}
    np.testing.assert_allclose(plain["logits"], full["logits"], atol=1e-5)
    np.testing.assert_allclose(second["logits"], full["logits"], atol=1e-5)
    for layer in (1, 2):
        np.testing.assert_allclose(
            second["embeddings"][layer], full["embeddings"][layer], atol=1e-5
        )


def test_maps_of_all_layers_unless_layers_are_named(tokenizer, tokens):
    model, params = factory.build_model(V2, tokenizer), parameters(V2, tokenizer)

    def shapes(**options):
        return jax.eval_shape(
            lambda p, t: model.apply(p, t, attention=True, **options), params, tokens
        )["attention"]

    assert set(shapes()) == {1, 2}
    assert set(shapes(layers=(2,))) == {2}
    assert shapes()[1].shape == (2, 4, 12, 12)


def test_nothing_is_stored_that_was_not_asked_for(tokenizer, tokens):
    model = build_model(dataclasses.replace(V2, num_layers=5), tokenizer)
    params = jax.eval_shape(model.init, jax.random.key(0))
    shape = "f32[2,4,12,12]"

    def program(**options):
        return str(jax.make_jaxpr(lambda p, t: model.apply(p, t, **options))(params, tokens))

    assert "f32[1,2,12,16]" not in program()
    assert "f32[1,2,12,16]" in program(layers=(3,))
    assert shape in program()
    assert "f32[1,2,4,12,12]" in program(layers=(3,), attention=True)
    assert "f32[5,2,4,12,12]" not in program(layers=(3,), attention=True)


def test_last_embedding_is_the_heads_first_layer_norm(config, tokenizer, params, tokens):
    model = build_model(config, tokenizer)
    hidden = np.asarray(model.encode(params, tokens), np.float64)
    norm = params["nt/head/norm"]
    centred = hidden - hidden.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + config.layer_norm_epsilon)
    expected = scaled * norm["scale"] + norm["offset"]
    out = outputs(config, tokenizer, tokens)
    np.testing.assert_allclose(out["embeddings"][config.num_layers], expected, atol=1e-5)


def test_head_at_selected_positions_equals_the_logits_there(config, tokenizer, params, tokens):
    model = build_model(config, tokenizer)
    logits = outputs(config, tokenizer, tokens)["logits"]
    positions = np.array([[1, 5, 7], [2, 0, 8]])
    hidden = np.take_along_axis(np.asarray(model.encode(params, tokens)), positions[..., None], 1)
    picked = np.take_along_axis(logits, positions[..., None], 1)
    np.testing.assert_allclose(model.head(params, hidden), picked, atol=1e-5)


def test_logits_are_zero_at_pads_only(config, tokenizer, tokens):
    logits = outputs(config, tokenizer, tokens)["logits"]
    pads = tokens == tokenizer.pad_id
    assert pads.any()
    assert not logits[pads].any()
    assert np.abs(logits[~pads]).min(-1).max() > 0


def test_a_row_of_pads_alone_is_finite(config, tokenizer, params):
    model = build_model(config, tokenizer)
    tokens = np.full((2, 12), tokenizer.pad_id, np.int32)
    assert np.isfinite(model.encode(params, tokens)).all()


@functools.cache
def loss_and_gradients(remat, tokenizer, light=layers.saved):
    """Loss, gradients, program text and numbers kept for the backward pass.

    Of v1, whose blocks have every kind of parameter.
    """
    model = factory.build_model(dataclasses.replace(V1, remat=remat), tokenizer, light=light)
    tokens = batch(tokenizer, (12, 9))

    def loss(params):
        return jnp.mean(jnp.square(model.head(params, model.encode(params, tokens))))

    params = parameters(V1, tokenizer)
    program = jax.jit(jax.value_and_grad(loss)).trace(params)
    backward = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
    kept = sum(x.size for x in jax.tree.leaves(backward))
    return *program.lower().compile()(params), str(program.jaxpr), kept


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_rematerialisation_changes_memory_not_gradients(tokenizer, policy):
    loss, gradients, program, kept = loss_and_gradients("none", tokenizer)
    same_loss, same, saving_program, fewer = loss_and_gradients(policy, tokenizer)
    assert program.count("dot_general") < saving_program.count("dot_general")
    assert fewer < kept
    np.testing.assert_allclose(loss, same_loss, rtol=1e-6)
    for left, right in zip(jax.tree.leaves(gradients), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5 * max(1.0, np.abs(left).max()))


@pytest.mark.parametrize(("unroll", "guarded"), [(1, "False"), (V1.num_layers, "True")])
def test_what_is_recomputed_is_guarded_where_the_compiler_would_join_it(tokenizer, unroll, guarded):
    """XLA's GPU compiler undoes the rematerialisation of unrolled layers that are not guarded."""
    config = dataclasses.replace(V1, remat="full")
    model = factory.build_model(config, tokenizer, unroll=unroll)
    tokens = batch(tokenizer, (12, 9))
    gradient = jax.grad(lambda params: jnp.sum(jnp.square(model.encode(params, tokens))))
    program = str(jax.make_jaxpr(gradient)(parameters(V1, tokenizer)))
    assert set(re.findall(r"prevent_cse=(\w+)", program)) == {guarded}


def test_what_is_recomputed_is_neither_kept_nor_a_product(tokenizer):
    loss, gradients, program, kept = loss_and_gradients("none", tokenizer)
    same_loss, same, lighter, fewer = loss_and_gradients("none", tokenizer, layers.recomputed)
    assert program.count("dot_general") == lighter.count("dot_general")
    assert fewer < kept
    np.testing.assert_allclose(loss, same_loss, rtol=1e-6)
    for left, right in zip(jax.tree.leaves(gradients), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6 * max(1.0, np.abs(left).max()))


def test_tokens_on_one_axis_change_neither_losses_nor_gradients(config, tokenizer, tokens, params):
    flat = layers.flattened(factory.unchanged)

    def program(**options):
        model = factory.build_model(config, tokenizer, **options)

        def loss(params):
            return jnp.mean(jnp.square(model.head(params, model.encode(params, tokens))))

        return jax.jit(jax.value_and_grad(loss)).lower(params)

    usual, flattened = program(), program(intercept=flat)
    # A gradient of weights sums over windows and tokens; no product of the second does over both.
    both = "contracting_dims = [0, 1] x [0, 1]"
    assert both in usual.as_text()
    assert both not in flattened.as_text()
    loss, gradients = usual.compile()(params)
    same_loss, same = flattened.compile()(params)
    np.testing.assert_allclose(loss, same_loss, rtol=1e-6)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(
            one, other, atol=1e-6 * max(1.0, np.abs(one).max())
        ),
        gradients,
        same,
    )


def test_key_size_may_differ_from_width_over_heads(tokenizer, tokens):
    config = dataclasses.replace(V2, num_heads=3, key_size=6)
    model = factory.build_model(config, tokenizer)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert params["nt/block/attention/query"]["w"].shape == (2, 16, 18)
    assert params["nt/block/attention/out"]["w"].shape == (2, 18, 16)
    assert jax.eval_shape(model.encode, params, tokens).shape == (2, 12, 16)


def test_attention_is_a_function_passed_in(tokenizer, tokens):
    model = factory.build_model(V2, tokenizer, library_attention)
    params = parameters(V2, tokenizer)
    logits = jax.jit(lambda tokens: model.apply(params, tokens)["logits"])(tokens)
    np.testing.assert_allclose(logits, outputs(V2, tokenizer, tokens)["logits"], atol=1e-5)


def test_refuses_what_it_cannot_run(tokenizer):
    with pytest.raises(ConfigError, match=r"num_layers=0 must be 1 or more"):
        factory.build_model(dataclasses.replace(V2, num_layers=0), tokenizer)
    with pytest.raises(ConfigError, match=r"embed_dim=16 .*num_heads=3.*key_size"):
        factory.build_model(dataclasses.replace(V2, num_heads=3), tokenizer)
    with pytest.raises(ConfigError, match=r"even head size"):
        factory.build_model(dataclasses.replace(V2, key_size=5), tokenizer)
    model = build_model(V1, tokenizer)
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(InputError, match=r"33 tokens exceeds .*max_positions=32"):
        jax.eval_shape(model.encode, params, np.zeros((1, 33), np.int32))
    for layer in (0, 3):
        with pytest.raises(InputError, match=rf"layer {layer} does not exist.* 1 to 2"):
            model.apply(params, np.zeros((2, 12), np.int32), layers=(layer,))
