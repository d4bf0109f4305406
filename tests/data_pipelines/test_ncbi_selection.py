"""The multispecies set, chosen from tables in NCBI's format."""

import collections
import gzip
import json
import pathlib
import random

import pytest

from data_pipelines.assembly_summary import name_of, read_summary
from data_pipelines.manifest import CHECKSUM_LIST, read_manifest, write_manifest
from data_pipelines.multispecies import PUBLISHED, select, summaries
from nt_jax import cli
from nt_jax.errors import InputError

OLD = [
    "assembly_accession",
    "bioproject",
    "biosample",
    "wgs_master",
    "refseq_category",
    "taxid",
    "species_taxid",
    "organism_name",
    "infraspecific_name",
    "isolate",
    "version_status",
    "assembly_level",
    "release_type",
    "genome_rep",
    "seq_rel_date",
    "asm_name",
    "submitter",
    "gbrs_paired_asm",
    "paired_asm_comp",
    "ftp_path",
    "excluded_from_refseq",
    "relation_to_type_material",
]
NEW = [name.replace("submitter", "asm_submitter") for name in OLD]
NEW += [
    "asm_not_live_date",
    "assembly_type",
    "group",
    "genome_size",
    "genome_size_ungapped",
    "gc_percent",
    "replicon_count",
    "scaffold_count",
    "contig_count",
    "annotation_provider",
    "annotation_name",
    "annotation_date",
    "total_gene_count",
    "protein_coding_gene_count",
    "non_coding_gene_count",
    "pubmed_id",
]
COMMENT = "##  See ftp://ftp.ncbi.nlm.nih.gov/genomes/README_assembly_summary.txt for a description"


def line(columns: list[str], number: int, organism: str, **values: str) -> str:
    accession = values.get("assembly_accession", f"GCF_{number:09d}.1")
    digits = accession[4:13]
    name = f"{accession}_ASM{digits}v1"
    cells = {
        "assembly_accession": accession,
        "bioproject": "PRJNA224116",
        "refseq_category": "na",
        "taxid": "7",
        "species_taxid": "7",
        "organism_name": organism,
        "infraspecific_name": "strain=X",
        "version_status": "latest",
        "assembly_level": "Scaffold",
        "release_type": "Major",
        "genome_rep": "Full",
        "seq_rel_date": "2016/09/19",
        "asm_name": f"ASM{digits}v1",
        "ftp_path": "https://ftp.ncbi.nlm.nih.gov/genomes/all/GCF/"
        f"{digits[:3]}/{digits[3:6]}/{digits[6:]}/{name}",
        "group": "bacteria",
        "genome_size": "4000000",
    } | values
    default = "" if columns is OLD else "na"
    return "\t".join(cells.get(column, default) for column in columns)


def table(path: pathlib.Path, rows: list[tuple[str, dict]], columns=NEW, mark="#") -> pathlib.Path:
    lines = [COMMENT, mark + "\t".join(columns)]
    lines += [line(columns, i, organism, **own) for i, (organism, own) in enumerate(rows, start=1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def chosen(path: pathlib.Path, **arguments) -> dict[str, str]:
    selection = select(read_summary(path), **arguments)
    return {assembly.genus: assembly.accession for assembly in selection.assemblies}


FTP = "ftp://ftp.ncbi.nlm.nih.gov/genomes/all/GCF_4.1_ASM4v1/"
OTHERS = [(f"{genus} prima", {}) for genus in ("Vibrio", "Yersinia", "Zymomonas")]


@pytest.mark.parametrize(
    ("organism", "genus", "species", "sure"),
    [
        ("Escherichia coli str. K-12 substr. MG1655", "Escherichia", "Escherichia coli", True),
        (
            "Candidatus Portiera aleyrodidarum TV",
            "Portiera",
            "Candidatus Portiera aleyrodidarum",
            1,
        ),
        ("[Clostridium] scindens ATCC 35704", "Clostridium", "Clostridium scindens", False),
        ("[Candida] auris", "Candida", "Candida auris", False),
        ("Bacillus sp. FJAT-1", "Bacillus", "Bacillus sp. FJAT-1", False),
        ("Bacillus cf. subtilis", "Bacillus", "Bacillus cf. subtilis", False),
        ("'Nostoc azollae' 0708", "Nostoc", "Nostoc azollae", True),
        ("Canis lupus familiaris", "Canis", "Canis lupus", True),
        ("Danio", "Danio", "Danio", False),
        ("uncultured Bacillus sp.", "", "uncultured Bacillus sp.", False),
        ("bacterium BMS3Abin01", "", "bacterium BMS3Abin01", False),
        ("Enterobacteriaceae bacterium 9_2_54FAA", "", "Enterobacteriaceae bacterium 9_2_54FAA", 0),
        ("secondary endosymbiont of Ctenarytaina", "", "secondary endosymbiont of Ctenarytaina", 0),
        ("", "", "", False),
    ],
)
def test_genus_and_species_by_the_name(organism, genus, species, sure):
    name = name_of(organism)
    assert (name.genus, name.species, name.sure) == (genus, species, bool(sure))


def test_the_best_assembly_of_a_genus_is_taken(tmp_path):
    rows = [
        ("Escherichia coli", {"assembly_level": "Complete Genome"}),
        ("Escherichia albertii", {"refseq_category": "representative genome"}),
        (
            "Escherichia fergusonii",
            {"refseq_category": "reference genome", "assembly_level": "Chromosome"},
        ),
        ("Salmonella bongori", {"assembly_level": "Contig"}),
        ("Salmonella enterica", {"assembly_level": "Scaffold"}),
        ("[Clostridium] scindens", {"assembly_level": "Complete Genome"}),
        ("Clostridium botulinum", {"assembly_level": "Complete Genome"}),
        ("Bacillus sp. X", {}),
        ("Bacillus subtilis", {}),
    ]
    own = chosen(table(tmp_path / "s.txt", rows))
    assert own == {
        "Escherichia": "GCF_000000003.1",
        "Salmonella": "GCF_000000005.1",
        "Clostridium": "GCF_000000007.1",
        "Bacillus": "GCF_000000009.1",
    }


def test_what_cannot_be_taken_is_counted_by_its_reason(tmp_path):
    rows = [
        *OTHERS,
        ("Vibrio secunda", {}),
        ("Arabidopsis thaliana", {"group": "plant"}),
        ("Tobacco mosaic virus", {"group": "viral"}),
        ("Influenza A virus", {"group": "viral"}),
        ("Halobacterium salinarum", {"group": "archaea"}),
        ("gut metagenome", {"group": "metagenomes"}),
        ("Aa replaced", {"version_status": "replaced"}),
        ("Bb suppressed", {"version_status": "suppressed"}),
        ("Cc excluded", {"excluded_from_refseq": "derived from metagenome"}),
        ("Dd partial", {"genome_rep": "Partial"}),
        ("Ee pathless", {"ftp_path": "na"}),
        ("uncultured bacterium", {}),
        ("Ff genbank", {"assembly_accession": "GCA_000000016.1"}),
    ]
    selection = select(read_summary(table(tmp_path / "s.txt", rows)))
    assert {a.genus for a in selection.assemblies} == {"Vibrio", "Yersinia", "Zymomonas"}
    assert selection.left_out == {
        "another of its genus is taken": 1,
        "group plant": 1,
        "group viral": 2,
        "group archaea": 1,
        "group metagenomes": 1,
        "version replaced": 1,
        "version suppressed": 1,
        "excluded from RefSeq": 1,
        "partial genome": 1,
        "no ftp path": 1,
        "no genus in its name": 1,
        "not in RefSeq (no GCF accession)": 1,
    }
    assert sum(selection.left_out.values()) + len(selection.assemblies) == len(rows)
    assert selection.bases["bacteria"] == 12_000_000


def test_one_name_in_two_groups_is_two_genera(tmp_path):
    rows = [*OTHERS, ("Vibrio insectum", {"group": "invertebrate"})]
    selection = select(read_summary(table(tmp_path / "s.txt", rows)))
    assert len(selection.assemblies) == 4


def test_a_row_of_the_manifest(tmp_path):
    rows = [*OTHERS, ("Candidatus Portiera aleyrodidarum", {"ftp_path": FTP})]
    selection = select(read_summary(table(tmp_path / "s.txt", rows)))
    row = next(a for a in selection.assemblies if a.genus == "Portiera")
    assert row.url == (
        "https://ftp.ncbi.nlm.nih.gov/genomes/all/GCF_4.1_ASM4v1/GCF_4.1_ASM4v1_genomic.fna.gz"
    )
    assert (row.species, row.group) == ("Candidatus Portiera aleyrodidarum", "bacteria")
    assert (row.checksum, row.bytes, row.weight) == (CHECKSUM_LIST, None, 1.0)
    write_manifest(tmp_path / "m.tsv", selection.assemblies)
    assert read_manifest(tmp_path / "m.tsv").assemblies == selection.assemblies


def many(count: int, seed: int = 0) -> list[tuple[str, dict]]:
    """Rows of `count` genera of all groups, two species each, shuffled."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for i in range(count):
        genus = f"G{letters[i // 676]}{letters[i // 26 % 26]}{letters[i % 26]}"
        own = {"group": list(PUBLISHED)[i % 6]}
        rows += [
            (f"{genus} {epithet}", {"assembly_accession": f"GCF_{i:06d}{j:03d}.1"} | own)
            for j, epithet in enumerate(("prima", "secunda"))
        ]
    random.Random(seed).shuffle(rows)
    return rows


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(tmp_path):
    one = select(read_summary(table(tmp_path / "1.txt", many(300))))
    two = select(read_summary(table(tmp_path / "2.txt", many(300, seed=1))))
    assert one.assemblies == two.assemblies
    other = select(read_summary(tmp_path / "1.txt"), seed=1)
    assert other.assemblies != one.assemblies
    assert {a.genus for a in other.assemblies} == {a.genus for a in one.assemblies}
    same = {a.accession for a in one.assemblies} & {a.accession for a in other.assemblies}
    assert 100 < len(same) < 200


def test_the_last_fifty_are_test_and_the_fifty_before_them_validation(tmp_path):
    selection = select(read_summary(table(tmp_path / "s.txt", many(300))))
    splits = [assembly.split for assembly in selection.assemblies]
    assert splits == ["train"] * 200 + ["validation"] * 50 + ["test"] * 50
    held_out = collections.Counter(a.group for a in selection.assemblies[200:])
    assert set(held_out) == set(PUBLISHED)


@pytest.mark.parametrize(("genera", "held_out"), [(199, 12), (100, 6), (17, 1), (3, 1)])
def test_few_genomes_have_smaller_splits(tmp_path, genera, held_out):
    selection = select(read_summary(table(tmp_path / "s.txt", many(genera))))
    assert selection.held_out == held_out
    counts = collections.Counter(a.split for a in selection.assemblies)
    assert counts == {
        "train": genera - 2 * held_out,
        "validation": held_out,
        "test": held_out,
    }


def test_genera_can_be_limited(tmp_path):
    path = table(tmp_path / "s.txt", many(60))
    selection = select(read_summary(path), limits={"fungi": 4, "protozoa": 100})
    assert selection.species()["fungi"] == 4
    assert selection.species()["protozoa"] == selection.genera["fungi"] == 10
    assert selection.left_out["its genus is not drawn"] == 6


def test_older_files_with_their_group_given(tmp_path):
    bacteria = table(tmp_path / "b.txt", [(name, {}) for name, _ in OTHERS], OLD, mark="# ")
    fungi = tmp_path / "f.txt.gz"
    rows = [("Candida albicans", {"assembly_accession": "GCF_000000009.1"})]
    fungi.write_bytes(gzip.compress(table(tmp_path / "f.txt", rows, OLD).read_bytes()))
    selection = select(summaries([f"bacteria={bacteria}", f"fungi={fungi}"]))
    assert selection.species() == dict.fromkeys(PUBLISHED, 0) | {"bacteria": 3, "fungi": 1}
    assert selection.bases["fungi"] is None
    with pytest.raises(InputError, match=r"line 2: no column group .*GROUP=.*b\.txt"):
        select(summaries([str(bacteria)]))
    with pytest.raises(InputError, match="'bakteria' is no group; did you mean 'bacteria'"):
        select(summaries([f"bakteria={bacteria}"]))
    with pytest.raises(InputError, match=r"GCF_000000001\.1: stands twice"):
        select(summaries([f"bacteria={bacteria}", f"bacteria={bacteria}"]))


def test_optional_columns_at_the_end_of_a_line_may_be_missing(tmp_path):
    path = table(tmp_path / "s.txt", OTHERS, OLD)
    path.write_text("\n".join(text.rstrip("\t") for text in path.read_text().splitlines()))
    assert len(select(summaries([f"bacteria={path}"])).assemblies) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("#assembly", "assembly"), "line 2: no header above it"),
        (lambda text: text.replace("ftp_path\t", ""), "line 2: column ftp_path is missing"),
        (lambda text: text[: text.index("Yersinia")], "line 4: 8 columns, the header has 38"),
        (lambda text: text[: text.rindex("bacteria")], "line 5: 25 columns, the header has 38"),
        (lambda text: COMMENT, "no line '#assembly_accession"),
        (lambda text: "", "the file is empty"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, change, message):
    path = table(tmp_path / "s.txt", OTHERS)
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError) as caught:
        select(read_summary(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_too_few_genera_are_refused(tmp_path):
    with pytest.raises(InputError, match="2 genera are left of 2 assemblies"):
        select(read_summary(table(tmp_path / "s.txt", OTHERS[:2])))


def test_the_command_prints_the_published_numbers_beside_its_own(tmp_path, capfd):
    path = table(tmp_path / "assembly_summary.txt", many(90))
    out = tmp_path / "m.tsv"
    command = ["data", "manifest", "multispecies", "--assembly-summary", str(path)]
    assert cli.main([*command, "--out", str(out)]) == 0
    text = capfd.readouterr().out
    (protozoa,) = [own for own in text.splitlines() if "protozoa" in own]
    assert [cell.strip() for cell in protozoa.split("|")[1:-1]] == [
        "protozoa", "15", "10", "10", "0.0B", "0.5B",
    ]  # fmt: skip
    assert "| its genus is not drawn" in text
    assert "fewer than 200: the published 50 and 50 are scaled down" in text
    assert len(read_manifest(out).assemblies) == 85
    assert out.read_text().startswith(
        "# multispecies: one species a genus, seed 0, genera published, from assembly_summary.txt\n"
    )
    assert cli.main([*command, "--out", str(out)]) == 2
    assert "is there already" in capfd.readouterr().err
    every = tmp_path / "all.tsv"
    assert cli.main([*command, "--out", str(every), "--genera", "all", "--json"]) == 0
    counts = json.loads(capfd.readouterr().out)
    assert counts["groups"]["protozoa"]["species"] == 15
    assert len(read_manifest(every).assemblies) == 90
