"""`config.json` of a Hugging Face folder, both ways.

Three kinds are read. Stock ESM (v1, and any DNA model of transformers' own ESM code), the hub's
NT v2 code (`model_type` "esm" with `add_bias_fnn`, whose feed-forward is always SwiGLU), and our
own code of hf_code/ (`model_type` "nt"). Written are stock ESM for learned positions and our own
for rotary ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nt_jax.config import MaskingConfig, ModelConfig, TokenizerConfig, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.interchange.weights import report_faults
from nt_jax.tokenizers import MAX_K, SPECIAL_TOKENS, KmerTokenizer

TYPE = "nt"
"""`model_type` of our own code."""
_AUTO_MAP = {
    "AutoConfig": "configuration_nt.NTConfig",
    "AutoModel": "modeling_nt.NTModel",
    "AutoModelForMaskedLM": "modeling_nt.NTForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_nt.NTForSequenceClassification",
}
# Written into transformers' ESM code as a constant.
ESM_TOKEN_DROPOUT = 0.15 * 0.8

_POSITIONS = {"absolute": "learned", "rotary": "rotary"}
_ACTIVATIONS = {"silu": "swish", "gelu": "gelu"}
# Settings of a run, not of the weights; kept where they are not the default.
_RUN_SETTINGS = ("attention", "embed_init_std", "compute_dtype", "remat", "rotary_angles")
_RUN_KEY = "nt_jax"

# PyTorch name -> ours; these must be there.
_SIZES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "embed_dim",
    "intermediate_size": "ffn_dim",
    "max_position_embeddings": "max_positions",
}
# Parts that ESM has and ours has not.
_FOREIGN = ("is_decoder", "add_cross_attention", "is_folding_model", "rope_scaling")


def config_from_hf(
    values: Mapping[str, Any], vocab_rows: int, where: str
) -> tuple[ModelConfig, TokenizerConfig]:
    """Configs of the model in a folder.

    Args:
        values: content of `config.json`.
        vocab_rows: rows of the token embedding, which tell the vocabulary and k.
        where: name of the file, for messages.

    Raises:
        InputError: an architecture that ours cannot express, a missing or ill-typed setting, or
            rows that fit no vocabulary or contradict `vocab_size`.
    """
    _check_architecture(values, where)
    tokenizer = _tokenizer(values, vocab_rows, where)
    report_faults({"missing": [key for key in _SIZES if key not in values]}, where)
    own = values["model_type"] == TYPE
    fields = {ours: _typed(values, key, int, where) for key, ours in _SIZES.items()}
    fields["max_positions"] -= tokenizer.make().pad_id + 1
    dropout = _typed(values, "token_dropout", bool, where, False)
    ratio = _typed(values, "token_dropout_ratio", float, where, ESM_TOKEN_DROPOUT)
    fields |= _feed_forward(values, own, where) | {
        "positions": _one_of(values, "position_embedding_type", _POSITIONS, where, "absolute"),
        "key_size": _typed(values, "head_dim", int, where, None),
        "rope_base": _typed(values, "rope_theta", float, where, 10_000.0),
        "rope_rescale": _typed(values, "rope_rescale", float, where, 1.0),
        "token_dropout": (ratio if own else ESM_TOKEN_DROPOUT) if dropout else 0.0,
        "embed_scale": _typed(values, "embed_scale", float, where, 1.0),
        "embed_layer_norm": _typed(values, "emb_layer_norm_before", bool, where, False),
        "layer_norm_epsilon": _typed(values, "layer_norm_eps", float, where, 1e-12),
    }
    settings = dict(_typed(values, _RUN_KEY, dict, where, {}))
    letters = settings.pop("letters", tokenizer.letters)
    tokenizer = from_dict(TokenizerConfig, to_dict(tokenizer) | {"letters": letters}, where)
    return from_dict(ModelConfig, fields | settings, where), tokenizer


def hf_from_config(
    model: ModelConfig,
    tokenizer: TokenizerConfig,
    masking: MaskingConfig | None,
    dtype: str,
    source: str,
) -> dict[str, Any]:
    """Content of `config.json`; inverse of `config_from_hf`.

    Raises InputError for learned positions with anything that stock ESM has not.
    """
    ids = tokenizer.make()
    common = {
        "vocab_size": ids.vocab_size,
        "mask_token_id": ids.mask_id,
        "pad_token_id": ids.pad_id,
        "eos_token_id": None,
        **{key: getattr(model, ours) for key, ours in _SIZES.items()},
        "max_position_embeddings": model.max_positions + ids.pad_id + 1,
        **({} if model.key_size is None else {"head_dim": model.key_size}),
        "emb_layer_norm_before": model.embed_layer_norm,
        "token_dropout": bool(model.token_dropout),
        "layer_norm_eps": model.layer_norm_epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
    }
    if masking is not None:
        common["masking"] = dataclasses.asdict(masking)
    defaults = ModelConfig()
    settings = {name: getattr(model, name) for name in _RUN_SETTINGS}
    settings = {k: v for k, v in settings.items() if v != getattr(defaults, k)}
    if tokenizer.letters != TokenizerConfig().letters:
        settings["letters"] = tokenizer.letters
    if settings:
        common[_RUN_KEY] = settings
    if model.positions == "learned":
        _refuse_beyond_esm(model, source)
        return {
            "model_type": "esm",
            "architectures": ["EsmForMaskedLM"],
            "position_embedding_type": "absolute",
            **common,
        }
    return {
        "model_type": TYPE,
        "architectures": ["NTForMaskedLM"],
        "auto_map": _AUTO_MAP,
        "position_embedding_type": "rotary",
        **common,
        "rope_theta": model.rope_base,
        "rope_rescale": model.rope_rescale,
        "hidden_act": {ours: key for key, ours in _ACTIVATIONS.items()}[model.ffn_activation],
        "ffn_gated": model.ffn_gated,
        "add_bias_fnn": model.ffn_bias,
        "embed_scale": model.embed_scale,
        "token_dropout_ratio": model.token_dropout or ESM_TOKEN_DROPOUT,
    }


def ties_embeddings(values: Mapping[str, Any], where: str) -> bool:
    """Whether PyTorch would use the token embedding as the output projection."""
    return _typed(values, "tie_word_embeddings", bool, where, True)


def _check_architecture(values: Mapping[str, Any], where: str) -> None:
    kind, names = values.get("model_type"), values.get("architectures")
    if kind not in ("esm", TYPE):
        raise InputError(f"{where}: model_type={kind!r} is not supported (supported: esm, {TYPE})")
    if names is not None and not any("ForMaskedLM" in str(name) for name in names):
        raise InputError(
            f"{where}: architectures={names}: only a masked language model can be read "
            "(EsmForMaskedLM)"
        )
    foreign = [f"{key}={values[key]}" for key in _FOREIGN if values.get(key)]
    if foreign:
        raise InputError(f"{where}: not supported: {', '.join(foreign)}")


def _feed_forward(values: Mapping[str, Any], own: bool, where: str) -> dict[str, Any]:
    if own:
        activation = _one_of(values, "hidden_act", _ACTIVATIONS, where, "silu")
        gated = _typed(values, "ffn_gated", bool, where, True)
        bias = _typed(values, "add_bias_fnn", bool, where, False)
    elif "add_bias_fnn" in values:
        activation, gated = "swish", True
        bias = _typed(values, "add_bias_fnn", bool, where)
    else:
        activation, gated, bias = "gelu", False, True
    return {"ffn_activation": activation, "ffn_gated": gated, "ffn_bias": bias}


def _tokenizer(values: Mapping[str, Any], rows: int, where: str) -> TokenizerConfig:
    declared = _typed(values, "vocab_size", int, where, rows)
    if declared != rows:
        raise InputError(f"{where}: vocab_size={declared}, but the token embedding has {rows} rows")
    for vocabulary in SPECIAL_TOKENS:
        for k in range(1, MAX_K + 1):
            ids = KmerTokenizer(k, vocabulary)
            if ids.vocab_size == rows:
                _check_ids(values, ids, where)
                return from_dict(TokenizerConfig, {"k": k, "vocabulary": vocabulary})
    raise InputError(
        f"{where}: a token embedding of {rows} rows fits no vocabulary: 4^k + 9 rows are v1, "
        "4^k + 11 are v2 (k = 1: 9 and 11)"
    )


def _check_ids(values: Mapping[str, Any], ids: KmerTokenizer, where: str) -> None:
    for key, expected in (("pad_token_id", ids.pad_id), ("mask_token_id", ids.mask_id)):
        found = values.get(key)
        if found not in (None, expected):
            raise InputError(f"{where}: {key}={found!r}, but this vocabulary has {expected}")


def _refuse_beyond_esm(model: ModelConfig, source: str) -> None:
    allowed: dict[str, tuple[Any, ...]] = {
        "key_size": (None, model.embed_dim // model.num_heads),
        "token_dropout": (0.0, ESM_TOKEN_DROPOUT),
        "rope_base": (10_000.0,),
        "rope_rescale": (1.0,),
        "ffn_activation": ("gelu",),
        "ffn_gated": (False,),
        "ffn_bias": (True,),
        "embed_scale": (1.0,),
    }
    faults = [
        f"model.{name}={getattr(model, name)} (only {' or '.join(map(str, values))})"
        for name, values in allowed.items()
        if getattr(model, name) not in values
    ]
    if faults:
        raise InputError(
            f"{source}: learned positions are exported as transformers' own ESM, which cannot "
            f"express {', '.join(faults)}; export to another format"
        )


def _typed(values: Mapping[str, Any], key: str, kind: type, where: str, *default: Any) -> Any:
    """Value of a key; absent or null is the default, where there is one."""
    value = values.get(key)
    if value is None and default:
        return default[0]
    # True is an int in Python and 1 is a float in JSON.
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}: {key}={value!r} is no {kind.__name__}")
    return kind(value)


def _one_of(
    values: Mapping[str, Any], key: str, meanings: Mapping[str, str], where: str, default: str
) -> str:
    value = _typed(values, key, str, where, default)
    if value not in meanings:
        known = ", ".join(meanings)
        raise InputError(f"{where}: {key}={value!r} is not supported (supported: {known})")
    return meanings[value]
