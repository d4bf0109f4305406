"""`hyperparams.json` of the published JAX layout, both ways (FACTS)."""

import logging
from collections.abc import Mapping
from typing import Any

from nt_jax.config import MaskingConfig, ModelConfig, TokenizerConfig, from_dict
from nt_jax.errors import InputError

_ACTIVATIONS = {"gelu-no-approx": "gelu", "swish": "swish", "silu": "swish"}

# Published keys and what their absence means; `...` marks the keys that must be there.
_HYPERPARAMS: dict[str, Any] = {
    "k_for_kmers": ...,
    "max_positions": ...,
    "num_layers": ...,
    "attention_heads": ...,
    "embed_dim": ...,
    "ffn_embed_dim": ...,
    "token_dropout": ...,
    "masking_ratio": ...,
    "masking_prob": ...,
    "embed_scale": 1.0,
    "emb_layer_norm_before": False,
    "key_dim": None,
    "positional_embedding": "learned",
    "use_rotary_embedding": False,
    "rescaling_factor": None,
    "add_bias_ffn": True,
    "ffn_activation_name": "gelu-no-approx",
    "use_glu_in_ffn": False,
    "layer_norm_eps": 1e-5,
    "add_bias_kv": False,
    "pre_layer_norm": True,
    # Ours: written where they are not the default, and ignored by the published loader.
    "rotary_angles": "float32",
    "letters": "any",
}
# What the published loader reads from the file and what it takes for granted.
_PUBLISHED_DEFAULTS = {"rope_base": 10_000.0, "rope_rescale": 1.0, "layer_norm_epsilon": 1e-5}


def config_from_hyperparams(
    hyperparams: Mapping[str, Any], vocab_rows: int, where: str = "hyperparams.json"
) -> tuple[ModelConfig, TokenizerConfig]:
    """Configs of a published model.

    Args:
        hyperparams: content of `hyperparams.json`; keys without meaning here are logged.
        vocab_rows: rows of the token embedding, which tell the vocabulary (v1 or v2).
        where: name of the file, for messages.

    Raises:
        InputError: a key is missing or ill-typed, the rows fit no vocabulary, or the model has a
            part that ours has not (`add_bias_kv`, post-LayerNorm, other positions or activations).
    """
    missing = [k for k, v in _HYPERPARAMS.items() if v is ... and k not in hyperparams]
    if missing:
        raise InputError(f"{where}: missing {', '.join(missing)}")
    ignored = sorted(set(hyperparams) - set(_HYPERPARAMS))
    if ignored:
        logging.getLogger(__name__).warning("%s: ignored keys: %s", where, ", ".join(ignored))
    values = _HYPERPARAMS | dict(hyperparams)
    model = from_dict(
        ModelConfig,
        {
            "num_layers": values["num_layers"],
            "num_heads": values["attention_heads"],
            "embed_dim": values["embed_dim"],
            "ffn_dim": values["ffn_embed_dim"],
            "key_size": values["key_dim"],
            "positions": _positions(values, where),
            "max_positions": values["max_positions"],
            "rope_rescale": values["rescaling_factor"] or 1.0,
            "rotary_angles": values["rotary_angles"],
            "ffn_activation": _supported(values, "ffn_activation_name", _ACTIVATIONS, where),
            "ffn_gated": _supported(values, "use_glu_in_ffn", _FLAG, where),
            "ffn_bias": _supported(values, "add_bias_ffn", _FLAG, where),
            "token_dropout": _token_dropout(values, where),
            "embed_scale": values["embed_scale"],
            "embed_layer_norm": _supported(values, "emb_layer_norm_before", _FLAG, where),
            "layer_norm_epsilon": values["layer_norm_eps"],
        },
        where,
    )
    _supported(values, "add_bias_kv", {False: False}, where)
    _supported(values, "pre_layer_norm", {True: True}, where)
    return model, _tokenizer(values["k_for_kmers"], values["letters"], vocab_rows, where)


def hyperparams_from_config(
    model: ModelConfig, tokenizer: TokenizerConfig, masking: MaskingConfig | None = None
) -> dict[str, Any]:
    """Content of `hyperparams.json`; inverse of `config_from_hyperparams`.

    Raises InputError for settings that the published loader would silently not apply.
    """
    for name, default in _PUBLISHED_DEFAULTS.items():
        if getattr(model, name) != default:
            raise InputError(
                f"model.{name}={getattr(model, name)}: the published layout has no place for it "
                f"(its loader always uses {default}); export to another format"
            )
    masking = masking or MaskingConfig()
    ratio, prob = masking.ratio, masking.mask
    if model.token_dropout and ratio * prob != model.token_dropout:
        # Only the product of the two is used.
        ratio, prob = model.token_dropout, 1.0
    activations = {ours: published for published, ours in reversed(_ACTIVATIONS.items())}
    return {
        "k_for_kmers": tokenizer.k,
        "max_positions": model.max_positions,
        "embed_scale": model.embed_scale,
        "emb_layer_norm_before": model.embed_layer_norm,
        "attention_heads": model.num_heads,
        **({"key_dim": model.key_size} if model.key_size is not None else {}),
        "embed_dim": model.embed_dim,
        "ffn_embed_dim": model.ffn_dim,
        "num_layers": model.num_layers,
        "token_dropout": bool(model.token_dropout),
        "masking_ratio": ratio,
        "masking_prob": prob,
        "positional_embedding": "learned" if model.positions == "learned" else None,
        "use_rotary_embedding": model.positions == "rotary",
        "use_glu_in_ffn": model.ffn_gated,
        "ffn_activation_name": activations[model.ffn_activation],
        "add_bias_ffn": model.ffn_bias,
        "add_bias_kv": False,
        **({"rotary_angles": model.rotary_angles} if model.rotary_angles != "float32" else {}),
        **({"letters": tokenizer.letters} if tokenizer.letters != "any" else {}),
    }


_FLAG = {True: True, False: False}


def _supported(values: Mapping[str, Any], key: str, meanings: Mapping[Any, Any], where: str) -> Any:
    value = values[key]
    # 1 == True in Python; a number is no flag.
    if not isinstance(value, bool | str) or value not in meanings:
        known = ", ".join(map(repr, meanings))
        raise InputError(f"{where}: {key}={value!r} is not supported (supported: {known})")
    return meanings[value]


def _positions(values: Mapping[str, Any], where: str) -> str:
    kind = (values["positional_embedding"], values["use_rotary_embedding"])
    meanings = {("learned", False): "learned", (None, True): "rotary"}
    if kind not in meanings:
        raise InputError(
            f"{where}: positional_embedding={kind[0]!r} with use_rotary_embedding={kind[1]!r} is "
            "not supported (supported: 'learned' with False, None with True)"
        )
    return meanings[kind]


def _token_dropout(values: Mapping[str, Any], where: str) -> float:
    if not _supported(values, "token_dropout", _FLAG, where):
        return 0.0
    shares = [values["masking_ratio"], values["masking_prob"]]
    if not all(isinstance(x, int | float) and 0 <= x <= 1 for x in shares):
        raise InputError(f"{where}: masking_ratio and masking_prob are shares, not {shares}")
    return float(shares[0] * shares[1])


def _tokenizer(k: Any, letters: Any, vocab_rows: int, where: str) -> TokenizerConfig:
    kinds = [
        from_dict(TokenizerConfig, {"k": k, "vocabulary": vocabulary, "letters": letters}, where)
        for vocabulary in ("v1", "v2")
    ]
    rows = [kind.make().vocab_size for kind in kinds]
    if vocab_rows not in rows:
        raise InputError(
            f"{where}: an embedding of {vocab_rows} rows fits no vocabulary of k_for_kmers={k} "
            f"(v1 has {rows[0]}, v2 has {rows[1]})"
        )
    return kinds[rows.index(vocab_rows)]
