"""Tokenizer files of a Hugging Face folder that give our ids without code of ours.

`tokenizer.json` spells the rule of nt_jax.tokenizers in the parts of the tokenizers library: lower
case becomes upper case, U becomes T, other IUPAC letters become N, then N, k-mers and single
letters are split off from left to right, with `<cls>` in front. Special tokens written into a
sequence (`ATTCCG<mask>ATTCCG`) are recognised. White space ends a run and is dropped, as in the
published tokenizer. What our own tokenizer refuses becomes one `<unk>` a stretch.
"""

import json
import pathlib
from typing import Any

from nt_jax.errors import InputError
from nt_jax.tokenizers import KmerTokenizer

_VOCABULARY = "vocab.txt"
# The roles that transformers has names for; the published map is the same.
_ROLES = {
    "cls_token": "<cls>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
_UPPER_CASE = (("a", "A"), ("c", "C"), ("g", "G"), ("[tuU]", "T"), ("[ryswkmbdhvnRYSWKMBDHV]", "N"))


def write_tokenizer(tokenizer: KmerTokenizer, max_positions: int, folder: pathlib.Path) -> None:
    """Writes tokenizer.json, its two configs and vocab.txt for `PreTrainedTokenizerFast`.

    `max_positions` is the longest input in tokens, `<cls>` included.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_positions,
        # Not token_type_ids, which no model here takes.
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        **_ROLES,
    }
    description = json.dumps(_description(tokenizer))
    (folder / "tokenizer.json").write_text(description + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(_ROLES, indent=2) + "\n")
    # No newline at the end: byte for byte the published file.
    (folder / _VOCABULARY).write_text("\n".join(tokenizer.tokens))


def check_vocabulary(tokenizer: KmerTokenizer, folder: pathlib.Path) -> None:
    """Raises InputError when the folder has a vocab.txt with other ids than `tokenizer`."""
    path = folder / _VOCABULARY
    if not path.is_file():
        return
    found = path.read_text(errors="replace").split()
    expected = tokenizer.tokens
    if tokenizer.vocabulary == "v1" and found[-2:] == ["<eos>", "<bos>"]:
        del found[-2:]  # listed by the published v1 code, but without rows in the embedding
    if len(found) != len(expected):
        raise InputError(
            f"{path}: {len(found)} tokens, but the model's vocabulary ({tokenizer.vocabulary}, "
            f"k={tokenizer.k}) has {len(expected)}"
        )
    for number, (left, right) in enumerate(zip(found, expected, strict=True)):
        if left != right:
            raise InputError(
                f"{path}: line {number + 1} is {left!r} where the vocabulary of the model "
                f"({tokenizer.vocabulary}, k={tokenizer.k}) has {right!r}"
            )


def _description(tokenizer: KmerTokenizer) -> dict[str, Any]:
    """Content of tokenizer.json, as tokenizers 0.19 and later read it."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, text in enumerate(tokenizer.special_tokens)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"Regex": letters}, "content": letter}
                for letters, letter in _UPPER_CASE
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {
                    "type": "Split",
                    "pattern": {"Regex": f"N|[ACGT]{{{tokenizer.k}}}|[ACGT]"},
                    "behavior": "Isolated",
                    "invert": False,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<cls>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<cls>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {
                "<cls>": {"id": "<cls>", "ids": [tokenizer.cls_id], "tokens": ["<cls>"]}
            },
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {text: number for number, text in enumerate(tokenizer.tokens)},
            "unk_token": "<unk>",
        },
    }
