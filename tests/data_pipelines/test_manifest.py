"""Manifests of assemblies: what is written is read, and what is wrong is named with its place."""

import dataclasses
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.manifest import GROUPS, Assembly, read_manifest, write_manifest
from nt_jax.errors import InputError

HEADER = ["accession", "species", "genus", "group", "url", "checksum", "bytes", "split", "weight"]
ROW = {
    "accession": "GCF_000005845.2",
    "species": "Escherichia coli",
    "genus": "Escherichia",
    "group": "bacteria",
    "url": "https://host.example/a/GCF_000005845.2_ASM584v2_genomic.fna.gz",
    "checksum": "md5:" + "0a" * 16,
    "bytes": "1379902",
    "split": "",
    "weight": "",
}


def write(path: pathlib.Path, *rows: dict, header=HEADER) -> pathlib.Path:
    lines = ["\t".join(header)]
    lines += ["\t".join((ROW | row)[name] for name in header) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_row_is_read(tmp_path):
    (assembly,) = read_manifest(write(tmp_path / "m.tsv", {})).assemblies
    assert assembly.accession == "GCF_000005845.2"
    assert (assembly.bytes, assembly.weight, assembly.split) == (1_379_902, 1.0, "")
    assert assembly.file_name == "GCF_000005845.2_ASM584v2_genomic.fna.gz"
    assert assembly.remote == ROW["url"]


def test_columns_may_stand_in_any_order_with_comments_and_carriage_returns(tmp_path):
    path = write(tmp_path / "m.tsv", {}, header=HEADER[::-1])
    plain = read_manifest(path).assemblies
    path.write_bytes(
        b"\xef\xbb\xbf# made by hand\r\n\r\n" + path.read_bytes().replace(b"\n", b"\r\n")
    )
    assert read_manifest(path).assemblies == plain


def test_local_files_are_found_from_the_folder_of_the_manifest(tmp_path, monkeypatch):
    path = write(
        tmp_path / "m.tsv",
        {"accession": "a", "url": "genomes/chr1:5-9.fa"},
        {"accession": "b", "url": "/data/b c.fa"},
        {"accession": "c", "url": "file:///data/c%20d.fa"},
        {"accession": "d", "url": "ftp://host.example/d.fa"},
    )
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest("m.tsv")
    assert [manifest.local(assembly) for assembly in manifest.assemblies] == [
        path.parent / "genomes" / "chr1:5-9.fa",
        pathlib.Path("/data/b c.fa"),
        pathlib.Path("/data/c d.fa"),
        None,
    ]
    assert manifest.assemblies[2].file_name == "c d.fa"
    assert manifest.assemblies[3].remote == "https://host.example/d.fa"


def test_groups_are_counted_and_unknown_ones_come_last(tmp_path):
    groups = ["archaea", "fungi", "bacteria", "fungi"]
    rows = [{"accession": f"a{i}", "group": group} for i, group in enumerate(groups)]
    manifest = read_manifest(write(tmp_path / "m.tsv", *rows))
    assert list(manifest.groups().items()) == [("bacteria", 1), ("fungi", 2), ("archaea", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"accession": ""}, "line 2, column accession: empty"),
        ({"accession": "../x"}, "column accession: '../x': use letters"),
        ({"species": ""}, "column species: empty"),
        ({"group": ""}, "column group: empty"),
        ({"checksum": "md5:12"}, "column checksum: 'md5:12': write md5: and 32"),
        ({"checksum": "crc32:00000000"}, "column checksum: 'crc32:00000000'"),
        ({"checksum": "sha256:" + "G" * 64}, "column checksum"),
        ({"bytes": "1e6"}, "column bytes: '1e6' is no positive whole number"),
        ({"bytes": "0"}, "column bytes"),
        ({"bytes": "-5"}, "column bytes"),
        ({"split": "training"}, "column split: 'training'; did you mean 'train'?"),
        ({"weight": "heavy"}, "column weight: 'heavy' is no number"),
        ({"weight": "0"}, "column weight: '0': a weight is positive"),
        ({"weight": "inf"}, "column weight"),
        ({"weight": "nan"}, "column weight"),
        ({"url": ""}, "column url: empty"),
        ({"url": "gs://bucket/a.fa"}, "gs is not supported; use http, https, ftp, file or a path"),
        ({"url": "https://host.example/a/"}, "does not end in a file name"),
        ({"url": "https://host.example"}, "does not end in a file name"),
        ({"url": "https://host.example/%2e%2e"}, "does not end in a file name"),
        ({"url": "https://host.example/a%2Fb"}, "does not end in a file name"),
        ({"url": "https:///a.fa"}, "names no host"),
        ({"url": "https://host.example:port/a.fa"}, "is no valid url"),
        ({"url": "https://host.example/a b.fa"}, "holds a blank"),
        ({"url": "file:a.fa"}, "write file:///PATH"),
        ({"url": "file://elsewhere/a.fa"}, "write file:///PATH"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_column(tmp_path, row, message):
    with pytest.raises(InputError) as caught:
        read_manifest(write(tmp_path / "m.tsv", row))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'm.tsv'}: line 2, column ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header in it"),
        ("# only this\n\n", "no header in it"),
        ("\t".join(HEADER) + "\n", "no assembly in it"),
        ("\t".join(HEADER[:-1]), "line 1: column weight is missing"),
        ("\t".join([*HEADER, "specie"]), "unknown column 'specie'; did you mean 'species'?"),
        ("\t".join([*HEADER, "url"]), "column url is there twice"),
        (" ".join(HEADER), "the columns, separated by tabs, are accession species"),
        ("\t".join(HEADER) + "\na\tb\n", "line 2: 2 columns, the header has 9"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, text, message):
    (tmp_path / "m.tsv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "m.tsv")
    assert message in str(caught.value)


def test_an_accession_stands_once_also_where_case_does_not_count(tmp_path):
    path = write(tmp_path / "m.tsv", {"accession": "a"}, {"accession": "b"}, {"accession": "A"})
    with pytest.raises(InputError, match="line 4, column accession: A stands in line 2 too"):
        read_manifest(path)


def test_splits_are_in_all_rows_or_in_none(tmp_path):
    path = write(tmp_path / "m.tsv", {"accession": "a", "split": "train"}, {"accession": "b"})
    with pytest.raises(InputError, match="line 3, column split: empty, but other rows have one"):
        read_manifest(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "m.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text in UTF-8"):
        read_manifest(tmp_path / "m.tsv")


WORDS = st.text(
    st.characters(blacklist_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=20
).map(str.strip)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
ASSEMBLIES = st.builds(
    Assembly,
    accession=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,15}\Z"),
    species=WORDS.filter(bool),
    genus=WORDS,
    group=st.sampled_from(GROUPS) | WORDS.filter(bool),
    url=st.from_regex(r"\A(https://host\.example/|ftp://h/|file:///|x/)[a-z]{1,5}\.fa\Z"),
    checksum=HEX.map("sha256:{}".format) | HEX.map(lambda text: f"md5:{text[:32]}") | st.just(""),
    bytes=st.none() | st.integers(1, 10**15),
    split=st.just(""),
    weight=st.floats(1e-300, 1e300),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(ASSEMBLIES, min_size=1, unique_by=lambda row: row.accession.casefold()),
    st.lists(st.sampled_from(["train", "validation", "test"]), min_size=1),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, rows, splits, split):
    if split:
        rows = [
            dataclasses.replace(row, split=splits[i % len(splits)]) for i, row in enumerate(rows)
        ]
    path = tmp_path_factory.mktemp("manifest") / "m.tsv"
    write_manifest(path, rows, comments=["two\nlines", "made by hand"])
    assert read_manifest(path).assemblies == tuple(rows)
    again = path.with_name("again.tsv")
    write_manifest(again, read_manifest(path).assemblies, comments=["two lines", "made by hand"])
    assert again.read_bytes() == path.read_bytes()


def test_what_could_not_be_read_is_not_written(tmp_path):
    (row,) = read_manifest(write(tmp_path / "m.tsv", {})).assemblies
    for change in ({"species": "a\tb"}, {"species": "a\nb"}, {"weight": -1.0}, {"species": " a"}):
        with pytest.raises(InputError):
            write_manifest(tmp_path / "out.tsv", [dataclasses.replace(row, **change)])
    with pytest.raises(InputError, match="stands in line"):
        write_manifest(tmp_path / "out.tsv", [row, row])
    assert not (tmp_path / "out.tsv").exists()
