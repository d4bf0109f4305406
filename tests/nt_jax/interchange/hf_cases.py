"""Exported folders with the outputs they must give, for hf_check.py."""

import json

import jax
import joblib
import numpy as np

from nt_jax.config import MaskingConfig, ModelConfig, TokenizerConfig
from nt_jax.interchange.hf import write_hf
from nt_jax.interchange.hyperparams import config_from_hyperparams
from nt_jax.interchange.weights import Weights, expected_tensors, to_params
from nt_jax.model.factory import build_model

EMBED = "esm_transformer/~/embed/embeddings"
SMALL = {"num_layers": 2, "num_heads": 4, "embed_dim": 32, "ffn_dim": 40, "max_positions": 24}
# Everything that the code of hf_code/ can do and the published models do not.
OWN = ModelConfig(
    **SMALL,
    key_size=12,
    rope_base=5_000.0,
    rope_rescale=2.0,
    ffn_activation="gelu",
    ffn_gated=False,
    ffn_bias=True,
    token_dropout=0.3,
    embed_scale=0.7,
    embed_layer_norm=True,
    layer_norm_epsilon=1e-3,
    embed_init_std=0.02,
    compute_dtype="bfloat16",
)
STOCK = ModelConfig(
    **SMALL,
    positions="learned",
    ffn_activation="gelu",
    ffn_gated=False,
    ffn_bias=True,
    embed_layer_norm=True,
)
VARIANTS = {
    "own": (OWN, TokenizerConfig(k=2, vocabulary="v2")),
    "stock": (STOCK, TokenizerConfig(k=3, vocabulary="v1")),
}
PUBLISHED = ("v1_tiny", "v2_tiny")
CASES = (*PUBLISHED, *VARIANTS)


def published_weights(folder):
    """A fixture of the published JAX layout, read by joblib."""
    nested = joblib.load(folder / "pytree_ckpt.joblib")
    arrays = {f"{m}/{n}": np.asarray(x) for m, named in nested.items() for n, x in named.items()}
    hyperparams = json.loads((folder / "hyperparams.json").read_text())
    model, tokenizer = config_from_hyperparams(hyperparams, arrays[EMBED].shape[0])
    return of_arrays(model, tokenizer, arrays)


def of_arrays(model, tokenizer, arrays):
    shapes = {name: array.shape for name, array in arrays.items()}
    return Weights(model, tokenizer, shapes, arrays.__getitem__, "ours")


def random_weights(model, tokenizer, seed=0):
    """No zeros and no ones, which would hide a wrong name."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in expected_tensors(model, tokenizer).items():
        centre = 1.0 if name.endswith("scale") else 0.0
        values = centre + 0.3 * rng.normal(size=shape)
        arrays[name] = values.astype(np.float32)
    return of_arrays(model, tokenizer, arrays)


def outputs(weights, seed=0):
    """Outputs of our model on a padded batch with masks, named as in the fixtures."""
    import dataclasses

    tokenizer = weights.tokenizer.make()
    rng = np.random.default_rng(seed)
    tokens = rng.integers(*tokenizer.kmer_ids, (3, weights.model.max_positions)).astype(np.int32)
    tokens[:, 0] = tokenizer.cls_id
    tokens[:2, [3, 5]] = tokenizer.mask_id
    tokens[1, 15:] = tokenizer.pad_id
    config = dataclasses.replace(weights.model, compute_dtype="float32")
    model, layers = build_model(config, tokenizer), tuple(range(1, config.num_layers + 1))
    run = jax.jit(lambda p, t: model.apply(p, t, layers=layers, attention=True))
    out = jax.tree.map(np.asarray, run(to_params(weights), tokens))
    found = {"tokens": tokens, "logits": out["logits"]}
    for layer in layers:
        found[f"embeddings_{layer}"] = out["embeddings"][layer]
        found[f"attention_{layer}"] = out["attention"][layer]
    return found


def strings(tokenizer, seed=0):
    """[text, ids] pairs: random sequences over the IUPAC letters in both cases."""
    rng = np.random.default_rng(seed)
    letters = list("ACGT" * 12 + "acgt" * 4 + "NNNUuRYSWKMBDHVnryswkmbdhv")
    texts = ["".join(rng.choice(letters, size)) for size in (0, 1, 7, 40, 60)]
    texts += ["ACGTGTACNTGCACGGANCGACTAGTCTGA", "NNNNNN"]
    return [[text, tokenizer.encode(text).tolist()] for text in texts]


def make_case(name, folder, fixtures):
    """A case folder of hf_check.py; returns its weights."""
    if name in PUBLISHED:
        weights = published_weights(fixtures / name)
        expected = dict(np.load(fixtures / name / "outputs.npz"))
    else:
        weights = random_weights(*VARIANTS[name])
        expected = outputs(weights)
    folder.mkdir(parents=True)
    np.savez(folder / "expected.npz", **expected)
    texts = strings(weights.tokenizer.make())
    (folder / "strings.json").write_text(json.dumps(texts))
    write_hf(weights, MaskingConfig(), folder / "export")
    return weights
