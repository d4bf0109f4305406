"""What `--label` says, and the reference that variants are looked up in."""

import re

import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation.variants.controls import cheap_controls
from nt_jax.evaluation.variants.haplotypes import locate
from nt_jax.evaluation.variants.labels import MOST_TEXTS, Tally, parse_label
from nt_jax.evaluation.variants.reference import open_reference


@pytest.mark.parametrize(
    ("label", "text", "value"),
    [
        ("AF<0.01", "0.009", 1.0),
        ("AF<0.01", "0.01", 0.0),
        ("AF < 0.01", "1e-9", 1.0),
        ("AF>0.01", "0.01", 0.0),
        ("AF>0.01", "0.02", 1.0),
        ("AF>0.01", None, None),
        ("AF>0.01", "inf", None),
        ("effect", "-0.25", -0.25),
        ("effect", None, None),
        ("CLNSIG=Pathogenic", "Pathogenic", 1.0),
        ("CLNSIG=Pathogenic", "Likely_pathogenic", 0.0),
        ("CLNSIG=Pathogenic", None, None),
        ("EXPR=a=b<c", "a=b<c", 1.0),
        ("KIND=a,b", "a,b", 1.0),
        ("KIND=a,b", "a", 0.0),
        (r"SO=SO\:0001583", "SO:0001583", 1.0),
        ("CLNSIG=Pathogenic, Likely_pathogenic : Benign", "Pathogenic", 1.0),
        ("CLNSIG=Pathogenic, Likely_pathogenic : Benign", "Likely_pathogenic", 1.0),
        ("CLNSIG=Pathogenic, Likely_pathogenic : Benign", "Benign", 0.0),
        ("CLNSIG=Pathogenic, Likely_pathogenic : Benign", "Likely_benign", None),
        ("CLNSIG=Pathogenic:Benign", "Pathogenic/Likely_pathogenic", None),
        ("CLNSIG=Pathogenic:Benign", "pathogenic", None),
        ("CLNSIG=Pathogenic:Benign", None, None),
        (r"CLNSIG=Pathogenic\,_low_penetrance:Benign", "Pathogenic,_low_penetrance", 1.0),
        (r"SO=SO\:1,SO\:2:SO\:3", "SO:2", 1.0),
        (r"SO=SO\:1,SO\:2:SO\:3", "SO:3", 0.0),
    ],
)
def test_labels(label, text, value):
    assert parse_label(label).value(text, "here") == value


def test_text_asks_for_the_positives():
    message = "v.vcf: line 3: CLNSIG is 'Benign', no number; name the texts of positives and"
    with pytest.raises(InputError, match=re.escape(f"{message} negatives, as in --label CLNSIG=")):
        parse_label("CLNSIG").value("Benign", "v.vcf: line 3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=x:y:z", "2 colons, one divides positives from negatives; write \\: for a colon"),
        ("A=x:", "an empty text"),
        ("A=:x", "an empty text"),
        ("A=x,,y:z", "an empty text"),
        ("A=x,y:z,x", "'x' is positive and negative"),
        ("=x", "NAME=POSITIVE,...:NEGATIVE,... or NAME=TEXT"),
    ],
)
def test_a_label_that_says_nothing_clear_is_refused(text, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        parse_label(text)
    assert "\n" not in str(caught.value)


def test_a_tally_counts_every_text_on_its_side_in_bounded_memory():
    label = parse_label("A=x,y:z")
    tally = Tally(label)
    others = [f"other{number}" for number in range(MOST_TEXTS + 5)]
    for text in ["x", "z", "z", None, *others]:
        tally.add(text, label.value(text, ""))
    found = tally.plain()
    assert found["positive"] == {"x": 1, "y": 0}
    assert found["negative"] == {"z": 2}
    assert len(found["unlabelled"]) == MOST_TEXTS + 2
    assert (found["unlabelled"]["other texts"], found["unlabelled"]["no value"]) == (5, 1)


def test_pieces_of_a_contig_are_found_in_true_coordinates(tmp_path):
    path = tmp_path / "ref.fa"
    path.write_text(">c:101-108\nACGTACGT\n>d\nTTTT\n>c:11-14\nGGCC\n")
    reference = open_reference(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert set(reference.pieces) == {"c", "d"}
    for name, start, end, bases in [
        ("c", 10, 14, b"GGCC"),
        ("c", 100, 108, b"ACGTACGT"),
        ("c", 107, 108, b"ACGTACGT"),
        ("d", 0, 0, b"TTTT"),
    ]:
        assert reference.piece(name, start, end).bases.tobytes() == bases
    for name, start, end in [
        ("c", 9, 10), ("c", 12, 15), ("c", 14, 14), ("c", 108, 108), ("d", 4, 4), ("e", 0, 1),
    ]:  # fmt: skip
        assert reference.piece(name, start, end) is None


def test_cheap_controls(tmp_path):
    path = tmp_path / "ref.fa"
    path.write_text(">c\nTTACGATTCATT\n")
    reference = open_reference(path, tmp_path)
    rows = {
        (4, "C", "T"): (1, 1, 0, -1),
        (5, "G", "A"): (1, 1, 0, -1),
        (3, "A", "G"): (1, 0, 0, 1),
        (9, "C", "G"): (0, 0, 0, 0),
        (6, "A", "T"): (0, 0, 0, 0),
        (4, "CG", "C"): (0, 0, 1, -1),
        (4, "C", "CGGA"): (0, 0, 3, 2),
        (4, "CG", "TA"): (0, 0, 0, -2),
    }
    alleles = [locate(reference, "c", *row, reach=20, longest=9)[0] for row in rows]
    found = cheap_controls([*alleles, None])
    values = np.array([found[f"control_{name}"] for name in ("transition", "cpg", "length", "gc")])
    np.testing.assert_array_equal(values[:, :-1].T, list(rows.values()))
    assert np.isnan(values[:, -1]).all()
