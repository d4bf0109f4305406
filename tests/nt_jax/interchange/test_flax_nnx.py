"""The Flax folder: its own `model.py` gives the stored outputs and our gradients."""

import dataclasses
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from nt_jax.errors import InputError
from nt_jax.interchange.flax_nnx import WEIGHTS_FILE, read_flax, write_flax
from nt_jax.interchange.weights import of_params, to_params
from nt_jax.model.factory import build_model
from tests.nt_jax.interchange.conftest import EMBED, run_alone


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flax") / "new"
    write_flax(published.weights(), folder)
    return folder


def source(folder):
    """`model.py` of a folder, as a module."""
    spec = importlib.util.spec_from_file_location("exported_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported_model"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(folder):
    return source(folder).load(folder)


@nnx.jit
def run(model, tokens):
    return model(tokens)


def test_outputs_equal_the_stored_ones(published, model):
    tokens = published.outputs["tokens"]
    assert (tokens == published.tokenizer.make().mask_id).any()
    published.assert_stored(run(model, tokens))


def test_numbers_do_not_depend_on_jit(published, model):
    tokens = published.outputs["tokens"][:2]
    jitted, plain = run(model, tokens), model(tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), jitted, plain)


def test_the_source_needs_neither_haiku_nor_us(published, folder, tmp_path):
    np.save(tmp_path / "tokens.npy", published.outputs["tokens"])
    code = f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        import numpy as np
        from flax import nnx
        from model import load
        model, tokens = load({str(folder)!r}), np.load("tokens.npy")
        found = nnx.jit(lambda model, tokens: model(tokens))(model, tokens)
        layers = dict((str(layer), x) for layer, x in found["embeddings"].items())
        np.savez("found.npz", logits=found["logits"], **layers)
    """
    run_alone(code, tmp_path, {"haiku", "nt_jax", "jmp", "torch"})
    found = dict(np.load(tmp_path / "found.npz"))
    logits = found.pop("logits")
    embeddings = {int(layer): x for layer, x in found.items()}
    published.assert_stored({"logits": logits, "embeddings": embeddings})


def test_source_is_short_and_whole(folder):
    text = (folder / "model.py").read_text()
    assert len(text.splitlines()) <= 225
    assert "import nt_jax" not in text
    assert "from nt_jax" not in text


def masked_loss(logits, targets, chosen):
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return jnp.where(chosen, losses, 0.0).sum() / chosen.sum()


def test_gradients_equal_ours(published, model, tmp_path):
    """Of a masked-LM loss, for every parameter: the module can be trained as the original."""
    tokens = published.outputs["tokens"]
    tokenizer = published.tokenizer.make()
    chosen = tokens == tokenizer.mask_id
    targets = np.full_like(tokens, tokenizer.kmer_ids[0] + 7)
    loss, gradients = nnx.jit(
        nnx.value_and_grad(lambda model: masked_loss(model(tokens)["logits"], targets, chosen))
    )(model)

    ours = build_model(published.model, tokenizer)
    our_loss, our_gradients = jax.jit(
        jax.value_and_grad(lambda p: masked_loss(ours.apply(p, tokens)["logits"], targets, chosen))
    )(to_params(published.weights()))
    np.testing.assert_allclose(loss, our_loss, rtol=1e-6)

    write_flax(of_params(our_gradients, published.model, published.tokenizer, "ours"), tmp_path)
    expected = safetensors.numpy.load_file(tmp_path / WEIGHTS_FILE)
    found = {".".join(map(str, path)): x[...] for path, x in nnx.to_flat_state(gradients)}
    assert found.keys() == expected.keys()
    largest = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        # A key bias shifts all scores of a query alike: its gradient is zero but for rounding.
        if not name.endswith(".key.bias"):
            assert np.abs(value).max() > 1e-4 * largest, name
        difference = np.abs(found[name] - value).max()
        assert difference <= 1e-5 * np.abs(value).max() + 1e-6 * largest, name


def test_a_step_of_training_lowers_the_loss(published, folder):
    import optax

    fresh = source(folder).load(folder)
    tokens = published.outputs["tokens"]
    optimizer = nnx.Optimizer(fresh, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            chosen = tokens != published.tokenizer.make().pad_id
            return masked_loss(model(tokens)["logits"], tokens, chosen)

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    losses = [float(step(fresh, optimizer)) for _ in range(5)]
    assert losses[-1] < 0.9 * losses[0]


def test_bfloat16_arithmetic_follows_ours(published, tmp_path):
    config = dataclasses.replace(published.model, compute_dtype="bfloat16")
    write_flax(dataclasses.replace(published.weights(), model=config), tmp_path)
    tokens = published.outputs["tokens"]
    found = run(source(tmp_path).load(tmp_path), tokens)["logits"]
    exact = published.outputs["logits"]
    ours = build_model(config, published.tokenizer.make())
    half = jax.jit(lambda p: ours.apply(p, tokens)["logits"])(to_params(published.weights()))
    real = tokens != published.tokenizer.make().pad_id
    errors = [
        np.abs(np.asarray(x) - exact)[real].max() / np.abs(exact).max() for x in (found, half)
    ]
    assert found.dtype == jnp.float32
    assert 1e-4 < errors[0] < 2 * errors[1] < 0.1


@pytest.mark.parametrize("published", ["v2_tiny"], indirect=True)
def test_rounded_rotary_angles_are_ours(published, tmp_path):
    tokenizer = published.tokenizer.make()
    tokens = np.random.default_rng(0).integers(*tokenizer.kmer_ids, (1, 400)).astype(np.int32)
    found, expected = {}, {}
    for angles in ("float32", "compute_dtype"):
        config = dataclasses.replace(
            published.model, compute_dtype="bfloat16", rotary_angles=angles, max_positions=400
        )
        folder = tmp_path / angles
        write_flax(dataclasses.replace(published.weights(), model=config), folder)
        assert read_flax(folder).model == config
        found[angles] = np.asarray(run(source(folder).load(folder), tokens)["logits"])
        apply = jax.jit(build_model(config, tokenizer).apply)
        expected[angles] = np.asarray(apply(to_params(published.weights()), tokens)["logits"])
    effect = np.abs(expected["compute_dtype"] - expected["float32"]).mean()
    for angles, logits in found.items():
        assert np.abs(logits - expected[angles]).mean() < 0.2 * effect, angles


def every_option(published):
    """A model with each optional part that the fixtures lack, and its parameters."""
    config = dataclasses.replace(
        published.model,
        num_layers=2,
        embed_layer_norm=True,
        embed_scale=1.5,
        ffn_bias=True,
        key_size=6,
        rope_rescale=2.0,
        layer_norm_epsilon=1e-3,
    )
    init = build_model(config, published.tokenizer.make()).init
    abstract = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), abstract)
    return config, params


def test_every_option_of_the_config(published, tmp_path):
    config, params = every_option(published)
    tokenizer = published.tokenizer.make()
    write_flax(of_params(params, config, published.tokenizer, "ours"), tmp_path)
    ours = build_model(config, tokenizer)
    # The longest input: every position of the table.
    tokens = np.random.default_rng(1).integers(*tokenizer.kmer_ids, (2, config.max_positions))
    tokens = tokens.astype(np.int32)
    tokens[1, 5:9] = tokenizer.mask_id
    tokens[0, 20:] = tokenizer.pad_id
    expected = jax.jit(lambda p, t: ours.apply(p, t, (1, 2)))(params, tokens)
    found = run(source(tmp_path).load(tmp_path), tokens)
    real = tokens != tokenizer.pad_id
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=2e-5)
    for layer in (1, 2):
        left, right = found["embeddings"][layer], expected["embeddings"][layer]
        np.testing.assert_allclose(left[real], right[real], atol=2e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, to_params(read_flax(tmp_path))))


def test_fresh_modules_can_be_made(folder, published):
    module = source(folder)
    config = module.Config.read(folder / "config.json")
    first, other = (module.NucleotideTransformer(config, nnx.Rngs(seed)) for seed in (0, 1))
    tokens = published.outputs["tokens"][:1]
    assert np.isfinite(first(tokens)["logits"]).all()
    assert not np.array_equal(
        first.token_embedding.embedding[...], other.token_embedding.embedding[...]
    )


def test_too_long_sequences_are_refused(published, model):
    longest = published.model.max_positions
    with pytest.raises(
        ValueError, match=rf"{longest + 1} tokens; the model takes at most {longest}"
    ):
        model(np.zeros((1, longest + 1), np.int32))


def test_weights_are_read_back_bit_by_bit(published, folder):
    back = read_flax(folder)
    assert (back.model, back.tokenizer) == (published.model, published.tokenizer)
    assert set(back.tensors) == set(published.arrays)
    for name, array in back:
        assert array.dtype == np.float32
        assert array.shape == back.tensors[name]
        assert array.tobytes() == published.arrays[name].tobytes()


def test_folder_holds_what_it_says(published, folder):
    assert {path.name for path in folder.iterdir()} == {
        "model.py",
        "weights.safetensors",
        "vocab.txt",
        "config.json",
    }
    tokenizer = published.tokenizer.make()
    assert tuple((folder / "vocab.txt").read_text().splitlines()) == tokenizer.tokens
    assert json.loads((folder / "config.json").read_text())["vocabulary"] == {
        "vocab_size": tokenizer.vocab_size,
        "pad_id": tokenizer.pad_id,
        "mask_id": tokenizer.mask_id,
    }


def test_load_names_weights_that_do_not_fit(published, tmp_path):
    write_flax(published.weights(), tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / WEIGHTS_FILE)
    arrays["blocks.0.query.bias"] = arrays["blocks.0.query.bias"][:-1]
    arrays["surplus"] = arrays.pop("blocks.1.fc1.kernel")
    safetensors.numpy.save_file(arrays, tmp_path / WEIGHTS_FILE)
    names = "blocks.0.query.bias, blocks.1.fc1.kernel, surplus"
    with pytest.raises(ValueError, match=f"of another shape: {names}$"):
        source(tmp_path).load(tmp_path)
    with pytest.raises(InputError, match=r"missing blocks\.1\.fc1\.kernel; unexpected surplus"):
        read_flax(tmp_path)


def test_incomplete_weights_are_not_written(published, tmp_path):
    with pytest.raises(InputError, match=rf"ckpt\.joblib: missing {EMBED}$"):
        write_flax(published.weights(**{EMBED: None}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
