"""The tokenizer against the published vocabulary, golden ids and a slow regex implementation."""

import itertools
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.tokenizers import KmerTokenizer, UnknownLetterError, load_tokenizer

GOLDEN = "ACGTGTACNTGCACGGANCGACTAGTCTGA"
GOLDEN_IDS = {
    "v1": [3, 737, 4100, 4102, 4104, 1935, 4103, 4100, 4104, 2856, 3488],
    "v2": [3, 739, 4102, 4104, 4106, 1937, 4105, 4102, 4106, 2858, 3490],
}
TOKENIZERS = st.builds(KmerTokenizer, k=st.integers(1, 9), vocabulary=st.sampled_from(["v1", "v2"]))
CLEAN = st.text(alphabet="ACGT", max_size=80)
DNA = st.lists(st.one_of(CLEAN, st.text(alphabet="N", max_size=12)), max_size=12).map("".join)


def reference_tokens(sequence: str, k: int) -> list[str]:
    """The published rule as a regular expression, independent of the code under test."""
    return ["<cls>", *re.findall(rf"N|[ACGT]{{{k}}}|[ACGT]", sequence)]


def reference_vocabulary(k: int, vocabulary: str) -> list[str]:
    special = ["<unk>", "<pad>", "<mask>", "<cls>"] + ["<eos>", "<bos>"] * (vocabulary == "v2")
    kmers = ["".join(letters) for letters in itertools.product("ATCG", repeat=k)]
    return list(dict.fromkeys([*special, *kmers, "A", "T", "C", "G", "N"]))


@pytest.mark.parametrize("vocabulary", ["v1", "v2"])
def test_golden_ids(vocabulary):
    ids = KmerTokenizer(6, vocabulary).encode(GOLDEN)
    assert ids.dtype == np.int32
    assert ids.tolist() == GOLDEN_IDS[vocabulary]


def test_published_vocabulary(real_data):
    published = (real_data / "tokenizer" / "nt_v2_vocab.txt").read_text().split("\n")
    assert list(KmerTokenizer(6, "v2").tokens) == published


@pytest.mark.parametrize(
    ("k", "vocabulary", "size"),
    [(6, "v1", 4105), (6, "v2", 4107), (3, "v2", 75), (1, "v1", 9), (1, "v2", 11)],
)
def test_vocabulary_sizes(k, vocabulary, size):
    tokenizer = KmerTokenizer(k, vocabulary)
    assert tokenizer.vocab_size == len(tokenizer.tokens) == len(set(tokenizer.tokens)) == size
    assert list(tokenizer.tokens) == reference_vocabulary(k, vocabulary)
    assert [tokenizer.unk_id, tokenizer.pad_id, tokenizer.mask_id, tokenizer.cls_id] == [0, 1, 2, 3]
    first, end = tokenizer.kmer_ids
    assert tokenizer.tokens[first] == "A" * k
    assert tokenizer.tokens[end - 1] == "G" * k


@pytest.mark.parametrize(("length", "bases"), [(1000, 5994), (2048, 12282)])
def test_capacity_of_published_contexts(length, bases):
    tokenizer = KmerTokenizer(6, "v1")
    assert tokenizer.encode("ACGTTG" * 2048)[:length].size == length
    assert tokenizer.encode(("ACGTTG" * 2048)[:bases]).size == length


@given(TOKENIZERS, DNA)
def test_encode_follows_the_published_rule(tokenizer, sequence):
    vocabulary = reference_vocabulary(min(tokenizer.k, 4), tokenizer.vocabulary)
    texts = reference_tokens(sequence, tokenizer.k)
    ids = tokenizer.encode(sequence)
    assert ids.dtype == np.int32
    if tokenizer.k <= 4:
        assert ids.tolist() == [vocabulary.index(text) for text in texts]
    else:  # too many k-mers to list: the number is the text read in base 4

        def number(text: str) -> int:
            return int(text.translate(str.maketrans("ATCG", "0123")), 4)

        first, end = tokenizer.kmer_ids
        letters = {letter: end + i for i, letter in enumerate("ATCGN")} | {"<cls>": 3}
        assert ids.tolist() == [
            letters[text] if text in letters else first + number(text) for text in texts
        ]


@given(TOKENIZERS, DNA)
def test_text_bytes_and_arrays_give_the_same_ids(tokenizer, sequence):
    ids = tokenizer.encode(sequence).tolist()
    raw = sequence.encode()
    assert tokenizer.encode(raw).tolist() == ids
    assert tokenizer.encode(np.frombuffer(raw, np.uint8)).tolist() == ids
    assert tokenizer.encode(np.frombuffer(raw[::-1], np.uint8)[::-1]).tolist() == ids


@given(st.integers(1, 6), st.sampled_from(["v1", "v2"]), DNA)
def test_decode_inverts_encode_and_bases_add_up(k, vocabulary, sequence):
    tokenizer = KmerTokenizer(k, vocabulary)
    ids = tokenizer.encode(sequence)
    assert tokenizer.decode(ids) == sequence
    covered = tokenizer.bases(ids)
    assert covered.dtype == np.int32
    assert covered.sum() == len(sequence)
    assert covered.tolist() == [0, *map(len, reference_tokens(sequence, k)[1:])]


@given(TOKENIZERS, DNA, st.integers(1, 60))
def test_prefix_is_the_start_of_the_whole(tokenizer, sequence, length):
    ids = tokenizer.encode(sequence)
    prefix = tokenizer.encode_prefix(np.frombuffer(sequence.encode(), np.uint8), length)
    assert prefix.dtype == np.int32
    assert prefix.shape == (length,)
    assert prefix[: ids.size].tolist() == ids[:length].tolist()
    assert (prefix[ids.size :] == tokenizer.pad_id).all()


def test_prefix_ignores_what_it_does_not_read():
    tokenizer = KmerTokenizer(6, "v2")
    assert tokenizer.encode_prefix(b"ACGTAC!", 2).tolist() == tokenizer.encode("ACGTAC").tolist()
    with pytest.raises(InputError, match="no room for <cls>"):
        tokenizer.encode_prefix(b"ACGT", 0)


@given(TOKENIZERS, DNA)
def test_lower_case_uracil_and_iupac(tokenizer, sequence):
    ids = tokenizer.encode(sequence).tolist()
    assert tokenizer.encode(sequence.lower()).tolist() == ids
    assert tokenizer.encode(sequence.replace("T", "U")).tolist() == ids
    assert tokenizer.encode(sequence.replace("T", "u")).tolist() == ids
    for letter in "RYSWKMBDHVrywskmbdhv":
        assert tokenizer.encode(sequence.replace("N", letter)).tolist() == ids


@given(DNA, st.characters(), DNA)
def test_other_characters_are_refused_with_their_position(before, character, after):
    if character.isascii() and character.upper() in "ACGTUNRYSWKMBDHV":
        return
    tokenizer = KmerTokenizer(6, "v2")
    expected = re.escape(f"character {character!r} at position {len(before)} (0-based)")
    with pytest.raises(InputError, match=expected) as error:
        tokenizer.encode(before + character + after)
    assert "\n" not in str(error.value)


@given(TOKENIZERS, DNA)
def test_published_letters_give_the_same_ids(tokenizer, sequence):
    strict = KmerTokenizer(tokenizer.k, tokenizer.vocabulary, "upper_acgtn")
    assert strict != tokenizer
    ids = tokenizer.encode(sequence).tolist()
    for form in (sequence, sequence.encode(), np.frombuffer(sequence.encode(), np.uint8)):
        assert strict.encode(form).tolist() == ids


@given(DNA, st.sampled_from("acgtnuURYSWKMBDHVryswkmbdhv-?X é"), DNA)
def test_published_letters_refuse_all_others_as_the_published_code_does(before, letter, after):
    strict = KmerTokenizer(6, "v2", "upper_acgtn")
    expected = f"character {letter!r} at position {len(before)} (0-based) is refused by letters"
    sequence = before + letter + after
    for encode in (strict.encode, lambda text: strict.encode_prefix(text, len(text) + 2)):
        with pytest.raises(KeyError) as error:
            encode(sequence)
        assert isinstance(error.value, UnknownLetterError)
        assert isinstance(error.value, InputError)
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)
    with pytest.raises(KeyError) as error:
        strict.encode_batch(["ACGT", sequence], 300)
    assert str(error.value).startswith(f"sequence 1: {expected}")


@pytest.mark.parametrize("sequence", [b"ACG-T", np.frombuffer(b"ACG-T", np.uint8)])
def test_bytes_are_refused_with_their_position(sequence):
    with pytest.raises(InputError, match="character '-' at position 3"):
        KmerTokenizer().encode(sequence)


@pytest.mark.parametrize("array", [np.zeros(4, np.int64), np.zeros((2, 2), np.uint8)])
def test_arrays_of_other_kinds_are_refused(array):
    with pytest.raises(TypeError, match=r"bases must be uint8\[n\]"):
        KmerTokenizer().encode(array)


def test_batch_pads_and_names_the_sequence_at_fault():
    tokenizer = KmerTokenizer(6, "v2")
    batch = tokenizer.encode_batch(["ACGTACG", b"", np.frombuffer(b"NN", np.uint8)], 4)
    assert batch.dtype == np.int32
    assert batch.tolist() == [
        [*tokenizer.encode("ACGTACG"), 1],
        [3, 1, 1, 1],
        [3, 4106, 4106, 1],
    ]
    assert tokenizer.encode_batch([], 4).shape == (0, 4)
    with pytest.raises(InputError, match=r"sequence 1: 5 tokens with <cls>.* length 4"):
        tokenizer.encode_batch(["A", "NNNN"], 4)
    with pytest.raises(InputError, match="sequence 1: character '-' at position 2"):
        tokenizer.encode_batch(["A", "AC-"], 4)


def test_special_tokens_in_decode_and_bases():
    tokenizer = KmerTokenizer(3, "v2")
    first, _ = tokenizer.kmer_ids
    ids = np.array([[3, first, 2], [0, 1, tokenizer.vocab_size - 1]])
    assert tokenizer.decode(ids[0]) == "AAA<mask>"
    assert tokenizer.decode(ids[1].tolist()) == "<unk>N"
    assert tokenizer.decode([]) == ""
    assert tokenizer.bases(ids).tolist() == [[0, 3, 0], [0, 0, 1]]


@pytest.mark.parametrize("wrong", [-1, 75])
def test_ids_outside_the_vocabulary_are_refused(wrong):
    tokenizer = KmerTokenizer(3, "v2")
    with pytest.raises(InputError, match=f"id {wrong} is outside the vocabulary of 75"):
        tokenizer.decode([3, wrong])
    with pytest.raises(InputError, match=f"id {wrong} is outside"):
        tokenizer.bases(np.array([wrong]))
    with pytest.raises(TypeError, match="must be integers"):
        tokenizer.bases(np.array([1.0]))


@pytest.mark.parametrize(
    ("k", "vocabulary", "message"),
    [(0, "v2", "k must be"), (13, "v1", "k must be"), (True, "v1", "k must be"), (6, "v3", "v3")],
)
def test_impossible_tokenizers_are_refused(tmp_path, k, vocabulary, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"type": "kmer", "k": k, "vocabulary": vocabulary}))
    with pytest.raises(InputError, match=f"tokenizer.json: .*{message}"):
        load_tokenizer(path)


def test_unknown_letters_are_refused():
    with pytest.raises(InputError, match="unknown letters 'upper'; known: any, upper_acgtn"):
        KmerTokenizer(6, "v2", "upper")


@given(TOKENIZERS)
def test_equal_tokenizers_are_interchangeable(tokenizer):
    twin = KmerTokenizer(tokenizer.k, tokenizer.vocabulary)
    twin.encode("ACGT" * 8)  # fills caches
    assert twin == tokenizer == pickle.loads(pickle.dumps(twin))
    assert hash(twin) == hash(tokenizer)


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_save_and_load(tmp_path, as_path):
    path = as_path(tmp_path / "tokenizer.json")
    KmerTokenizer(3, "v1").save(path)
    assert load_tokenizer(path) == KmerTokenizer(3, "v1")
    KmerTokenizer(6, "v2", "upper_acgtn").save(path)
    assert load_tokenizer(path) == KmerTokenizer(6, "v2", "upper_acgtn")


def test_files_from_before_there_was_a_choice_of_letters(tmp_path):
    path = tmp_path / "tokenizer.json"
    KmerTokenizer(3, "v1").save(path)
    values = json.loads(path.read_text())
    assert values.pop("letters") == "any"
    path.write_text(json.dumps(values))
    assert load_tokenizer(path) == KmerTokenizer(3, "v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"k": 6}', "'vocabulary' is missing"),
        ('{"k": 6, "vocabulary": ["v2"]}', "no tokenizer file"),
        (
            '{"type": "kmer", "k": 6, "vocabulary": "v2", "vocab_size": 4105}',
            "vocab_size is 4105 where this tokenizer has 4107",
        ),
        ('{"type": "bpe", "k": 6, "vocabulary": "v2"}', "type is 'bpe'"),
    ],
)
def test_load_refuses_other_files(tmp_path, text, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_tokenizer(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_load_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot read the tokenizer: No such file"):
        load_tokenizer(tmp_path / "none.json")


def test_many_ns_take_the_vectorised_path():
    """Work per base, not per run: the number of NumPy calls does not grow with the Ns."""
    tokenizer = KmerTokenizer(6, "v2")
    calls = []

    def count(frame, event, argument):
        if event in ("call", "c_call"):
            calls.append(event)

    def number_of_calls(sequence: str) -> int:
        calls.clear()
        sys.setprofile(count)
        try:
            tokenizer.encode(sequence)
        finally:
            sys.setprofile(None)
        return len(calls)

    number_of_calls("ACGTACGN")  # fills caches
    assert number_of_calls("ACGTACGN" * 1000) == number_of_calls("ACGTACGN")


def test_importing_needs_no_jax():
    code = "import sys, nt_jax.tokenizers; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
