"""The tokenizer files give our ids on any sequence, without code of ours."""

import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.interchange.hf_tokenizer import check_vocabulary, write_tokenizer
from nt_jax.tokenizers import KmerTokenizer

transformers = pytest.importorskip("transformers")

KINDS = [(1, "v1"), (1, "v2"), (2, "v1"), (3, "v2"), (5, "v1"), (6, "v1"), (6, "v2")]
LETTERS = "ACGTUNRYSWKMBDHV"
SEQUENCES = st.lists(
    st.one_of(
        st.text(alphabet="ACGT", max_size=30),
        st.text(alphabet=LETTERS + LETTERS.lower(), max_size=10),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    made = {}
    for k, vocabulary in KINDS:
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(KmerTokenizer(k, vocabulary), 128, folder)
        made[k, vocabulary] = transformers.AutoTokenizer.from_pretrained(folder)
    return made


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), SEQUENCES)
def test_ids_are_ours_on_any_sequence(fast, kind, sequence):
    ours = KmerTokenizer(*kind)
    ids = fast[kind](sequence)["input_ids"]
    assert ids == ours.encode(sequence).tolist()
    assert fast[kind].decode(ids, skip_special_tokens=True) == ours.decode(ids)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.lists(SEQUENCES, min_size=1, max_size=5))
def test_batches_are_padded_as_ours(fast, kind, sequences):
    ours = KmerTokenizer(*kind)
    batch = fast[kind](sequences, padding=True, return_tensors="np")
    expected = ours.encode_batch(sequences, batch["input_ids"].shape[1])
    np.testing.assert_array_equal(batch["input_ids"], expected)
    np.testing.assert_array_equal(batch["attention_mask"], expected != ours.pad_id)
    assert set(batch) == {"input_ids", "attention_mask"}


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.lists(SEQUENCES, max_size=4), st.data())
def test_special_tokens_inside_a_sequence_are_recognised(fast, kind, sequences, data):
    ours = KmerTokenizer(*kind)
    text, ids = "", [ours.cls_id]
    for sequence in sequences:
        special = data.draw(st.sampled_from(ours.special_tokens))
        text += sequence + special
        ids += [*ours.encode(sequence)[1:].tolist(), ours.tokens.index(special)]
    assert fast[kind](text)["input_ids"] == ids


def test_the_published_golden_input(fast):
    ids = fast[6, "v2"]("ATTCCG" * 3 + "<mask>" + "ATTCCG" * 3)["input_ids"]
    assert ids == [3, 369, 369, 369, 2, 369, 369, 369]
    assert ids.index(2) == 4


def test_what_ours_refuses_is_unknown(fast):
    tokenizer, ours = fast[6, "v2"], KmerTokenizer(6, "v2")
    a, t, c, g = range(4102, 4106)
    # One <unk> a stretch; it ends the run in front of it.
    assert tokenizer("ACGTACG-*!AC")["input_ids"] == [3, ours.encode("ACGTAC")[1], g, 0, a, c]
    assert tokenizer("é")["input_ids"] == [3, 0]
    # White space ends a run too, and is no token, as in the published tokenizer.
    assert tokenizer(" AC\nGT\t")["input_ids"] == [3, a, c, g, t]
    with pytest.raises(InputError):
        ours.encode("AC-GT")


def test_cls_can_be_left_out(fast):
    assert fast[6, "v1"]("ACG", add_special_tokens=False)["input_ids"] == [4100, 4102, 4103]


def test_length_and_truncation(fast):
    tokenizer = fast[6, "v2"]
    assert tokenizer.model_max_length == 128
    ids = tokenizer("ACGTAC" * 200, truncation=True)["input_ids"]
    assert len(ids) == 128
    assert ids == KmerTokenizer().encode("ACGTAC" * 200)[:128].tolist()


def test_roles_of_the_special_tokens(fast):
    for (_, vocabulary), tokenizer in fast.items():
        ids = [tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
        assert [*ids, tokenizer.cls_token_id] == [0, 1, 2, 3]
        assert len(tokenizer) == tokenizer.vocab_size
        eos = tokenizer.convert_tokens_to_ids("<eos>")
        assert eos == (4 if vocabulary == "v2" else tokenizer.unk_token_id)


def test_published_files_byte_for_byte(tmp_path, real_data):
    write_tokenizer(KmerTokenizer(6, "v2"), 2048, tmp_path)
    hashes = json.loads((real_data / "tokenizer" / "nt_v2_50m_fixtures.json").read_text())
    for name in ("vocab.txt", "special_tokens_map.json"):
        size, digest = hashes["files_sha256"][name]
        content = (tmp_path / name).read_bytes()
        assert len(content) == size
        assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize(("k", "vocabulary"), KINDS)
def test_our_own_vocabulary_file_passes(tmp_path, k, vocabulary):
    tokenizer = KmerTokenizer(k, vocabulary)
    check_vocabulary(tokenizer, tmp_path)  # none at all
    write_tokenizer(tokenizer, 128, tmp_path)
    check_vocabulary(tokenizer, tmp_path)
    path = tmp_path / "vocab.txt"
    path.write_text(path.read_text() + "\n")
    check_vocabulary(tokenizer, tmp_path)


def test_v1_files_may_list_the_tokens_that_have_no_rows(tmp_path):
    tokens = [*KmerTokenizer(6, "v1").tokens, "<eos>", "<bos>"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    check_vocabulary(KmerTokenizer(6, "v1"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens[:-1], "74 tokens, but the model's vocabulary (v2, k=3) has 75"),
        (
            lambda tokens: [*tokens[:6], tokens[7], tokens[6], *tokens[8:]],
            "line 7 is 'AAT' where the vocabulary of the model (v2, k=3) has 'AAA'",
        ),
    ],
)
def test_other_vocabulary_files_are_refused(tmp_path, change, message):
    tokenizer = KmerTokenizer(3, "v2")
    (tmp_path / "vocab.txt").write_text("\n".join(change(list(tokenizer.tokens))))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        check_vocabulary(tokenizer, tmp_path)
    assert str(tmp_path / "vocab.txt") in str(caught.value)
    assert "\n" not in str(caught.value)
