"""v1 equals transformers' EsmForMaskedLM with the same random weights, masks and pads included."""

import jax
import numpy as np
import pytest

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.interchange.weights import Weights, to_params
from nt_jax.model.factory import build_model
from nt_jax.tokenizers import KmerTokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENIZER = KmerTokenizer(k=2, vocabulary="v1")
CONFIG = ModelConfig(
    num_layers=3,
    num_heads=4,
    embed_dim=32,
    ffn_dim=48,
    positions="learned",
    max_positions=24,
    ffn_activation="gelu",
    ffn_gated=False,
    ffn_bias=True,
    token_dropout=0.15 * 0.8,
    layer_norm_epsilon=1e-12,
)
# Published module -> prefix of the PyTorch keys.
LAYER = {
    "mha/query": "attention.self.query",
    "mha/key": "attention.self.key",
    "mha/value": "attention.self.value",
    "mha/mha_output": "attention.output.dense",
    "mha_layer_norm": "attention.LayerNorm",
    "final_layer_norm": "LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
MODEL = {
    "embed": "esm.embeddings.word_embeddings",
    "esm_learned_positional_embeddings/~/embed": "esm.embeddings.position_embeddings",
    "esm_roberta_lm_head/~/emb_layer_norm_after": "esm.encoder.emb_layer_norm_after",
    "esm_roberta_lm_head/~/lm_head_fc_1": "lm_head.dense",
    "esm_roberta_lm_head/~/lm_head_layer_norm": "lm_head.layer_norm",
    "esm_roberta_lm_head/~/lm_final_fc": "lm_head.decoder",
}


def published_weights(state):
    """Published names from PyTorch weights, which are stored transposed."""
    names = {f"esm_transformer/~/{module}": prefix for module, prefix in MODEL.items()} | {
        f"esm_transformer/attention_layer_{i}/~/{module}": f"esm.encoder.layer.{i}.{prefix}"
        for i in range(CONFIG.num_layers)
        for module, prefix in LAYER.items()
    }
    arrays = {}
    for module, prefix in names.items():
        weight = state[f"{prefix}.weight"].numpy()
        if "embed" in module.rsplit("/", 1)[-1] and "norm" not in module:
            arrays[f"{module}/embeddings"] = weight
            continue
        bias = state.get(f"{prefix}.bias", state.get("lm_head.bias")).numpy()
        if "norm" in module:
            arrays |= {f"{module}/scale": weight, f"{module}/offset": bias}
        else:
            arrays |= {f"{module}/w": weight.T, f"{module}/b": bias}
    shapes = {name: array.shape for name, array in arrays.items()}
    tokenizer = TokenizerConfig(k=2, vocabulary="v1")
    return Weights(CONFIG, tokenizer, shapes, arrays.__getitem__, "EsmForMaskedLM")


@pytest.fixture(scope="module")
def esm():
    config = transformers.EsmConfig(
        vocab_size=TOKENIZER.vocab_size,
        mask_token_id=TOKENIZER.mask_id,
        pad_token_id=TOKENIZER.pad_id,
        hidden_size=CONFIG.embed_dim,
        num_hidden_layers=CONFIG.num_layers,
        num_attention_heads=CONFIG.num_heads,
        intermediate_size=CONFIG.ffn_dim,
        max_position_embeddings=CONFIG.max_positions + 2,
        position_embedding_type="absolute",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=CONFIG.layer_norm_epsilon,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.EsmForMaskedLM(config).eval()
    with torch.no_grad():
        # Fresh biases are zero and scales one, which would hide a wrong mapping.
        for name, values in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            values.copy_(centre + 0.3 * torch.randn_like(values))
    return model


def test_logits_embeddings_and_maps_agree(esm):
    rng = np.random.default_rng(0)
    tokens = rng.integers(*TOKENIZER.kmer_ids, (3, 24)).astype(np.int32)
    tokens[:, 0] = TOKENIZER.cls_id
    tokens[0, [3, 7, 8]] = TOKENIZER.mask_id
    tokens[1, 15:] = TOKENIZER.pad_id
    tokens[1, 4] = TOKENIZER.mask_id
    real = tokens != TOKENIZER.pad_id

    params = to_params(published_weights(esm.state_dict()))
    model = build_model(CONFIG, TOKENIZER)
    run = jax.jit(lambda p, t: model.apply(p, t, layers=(1, 2, 3), attention=True))
    ours = jax.tree.map(np.asarray, run(params, tokens))
    with torch.no_grad():
        theirs = esm(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(real.astype(np.int64)),
            output_hidden_states=True,
            output_attentions=True,
        )

    def check(left, right):
        right = right.numpy()
        assert np.abs(left - right)[real].max() <= 2e-5 * np.abs(right[real]).max()

    check(ours["logits"], theirs.logits)
    for layer in (1, 2, 3):
        check(ours["embeddings"][layer], theirs.hidden_states[layer])
        check(ours["attention"][layer].swapaxes(1, 2), theirs.attentions[layer - 1].swapaxes(1, 2))


def test_without_token_dropout_the_logits_are_far_off(esm):
    # The comparison above would notice: FACTS says wrong "by their own size".
    import dataclasses

    tokens = np.array([[3, *range(4, 14)]], np.int32)
    params = to_params(published_weights(esm.state_dict()))
    config = dataclasses.replace(CONFIG, token_dropout=0.0)
    run = jax.jit(lambda p, t: build_model(config, TOKENIZER).apply(p, t)["logits"])
    with torch.no_grad():
        theirs = esm(input_ids=torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    assert np.abs(run(params, tokens) - theirs).max() > 0.05 * np.abs(theirs).max()
