"""v1 equals transformers' EsmForMaskedLM with the same random weights, masks and pads included."""

import dataclasses

import jax
import numpy as np
import pytest

from nt_jax.interchange.hf import read_hf
from nt_jax.interchange.weights import to_params
from nt_jax.model.factory import build_model
from nt_jax.tokenizers import KmerTokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENIZER = KmerTokenizer(k=2, vocabulary="v1")
LENGTH = 24


@pytest.fixture(scope="module")
def esm():
    config = transformers.EsmConfig(
        vocab_size=TOKENIZER.vocab_size,
        mask_token_id=TOKENIZER.mask_id,
        pad_token_id=TOKENIZER.pad_id,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=LENGTH + 2,
        position_embedding_type="absolute",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=1e-12,
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


@pytest.fixture(scope="module")
def weights(esm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("esm")
    esm.save_pretrained(folder)
    return read_hf(folder)


def test_logits_embeddings_and_maps_agree(esm, weights):
    rng = np.random.default_rng(0)
    tokens = rng.integers(*TOKENIZER.kmer_ids, (3, LENGTH)).astype(np.int32)
    tokens[:, 0] = TOKENIZER.cls_id
    tokens[0, [3, 7, 8]] = TOKENIZER.mask_id
    tokens[1, 15:] = TOKENIZER.pad_id
    tokens[1, 4] = TOKENIZER.mask_id
    real = tokens != TOKENIZER.pad_id

    assert weights.tokenizer.make() == TOKENIZER
    model = build_model(weights.model, TOKENIZER)
    run = jax.jit(lambda p, t: model.apply(p, t, layers=(1, 2, 3), attention=True))
    ours = jax.tree.map(np.asarray, run(to_params(weights), tokens))
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


def test_without_token_dropout_the_logits_are_far_off(esm, weights):
    # The comparison above would notice: FACTS says wrong "by their own size".
    tokens = np.array([[3, *range(4, 14)]], np.int32)
    config = dataclasses.replace(weights.model, token_dropout=0.0)
    run = jax.jit(lambda p, t: build_model(config, TOKENIZER).apply(p, t)["logits"])
    with torch.no_grad():
        theirs = esm(input_ids=torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    assert np.abs(run(to_params(weights), tokens) - theirs).max() > 0.05 * np.abs(theirs).max()
