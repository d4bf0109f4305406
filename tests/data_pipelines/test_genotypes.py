"""Genotypes to alleles: real panels against bcftools, and what those panels do not have."""

import pathlib
import re

import numpy as np
import pysam
import pysam.bcftools
import pytest

from data_pipelines import haplotypes
from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.genotypes import Counts, Panel, Reference, Skipped, open_panel, read_alleles
from data_pipelines.haplotypes import Allele, Alleles
from nt_jax.errors import InputError

REFERENCE = "ACGTACGTTTGCAACCGGTTACGATCGATT"
COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
PANELS = {
    "chr22": ("1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38", "GRCh38_chr22_16600000-16800000"),
    "chr20": ("1kg_p3_chr20_1-4Mb_300samples_GRCh37", "GRCh37_chr20_1000001-2000000"),
}


def contig(bases: str = REFERENCE, name: str = "c", start: int = 0) -> Contig:
    return Contig(name, np.frombuffer(bases.encode(), np.uint8), start, 0, 0, 0)


def write_vcf(path: pathlib.Path, rows: list[str], samples: str = "one two") -> pathlib.Path:
    """Rows of `POS REF ALT GT GT`, on contig c where no other is in front."""
    names = samples.split()
    lines = [
        "##fileformat=VCFv4.2",
        f"##contig=<ID=c,length={len(REFERENCE)}>",
        "##contig=<ID=d,length=1000>",
        '##INFO=<ID=END,Number=1,Type=Integer,Description="End">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        "\t".join([*COLUMNS, *names]),
    ]
    for row in rows:
        chrom = "c"
        columns = row.split()
        if not columns[0].isdigit():
            chrom, *columns = columns
        pos, ref, alt, *calls = columns
        lines.append("\t".join([chrom, pos, ".", ref, alt, ".", ".", ".", "GT", *calls]))
    path.write_text("\n".join(lines) + "\n")
    return path


def held(*contigs: Contig) -> Reference:
    return Reference({contig.name for contig in contigs}, lambda: contigs)


def sequences(path: pathlib.Path, reference: Contig, **options) -> tuple[list[str], Counts]:
    """All haplotypes of the contig, whole."""
    panel, counts = open_panel(path, **options), Counts()
    found = [a for _, a in read_alleles(panel, held(reference), counts)]
    packed = packed_of(found, reference, panel)
    return [whole(packed, reference, number) for number in range(panel.haplotypes)], counts


def packed_of(found: list[Allele], reference: Contig, panel: Panel) -> bytes:
    alleles = Alleles.of(found, panel.haplotypes)
    return haplotypes.pack(alleles, 0, len(found), reference.start, panel.haplotypes)


def whole(packed: bytes, reference: Contig, haplotype: int) -> str:
    changes = haplotypes.carried(packed, haplotype)
    size = len(reference.bases) + sum(len(c.alt) - c.length for c in changes)
    # What is inserted in front of the first base would belong to a window before.
    bases = haplotypes.assemble(reference.bases.tobytes(), changes, 0, size + 1).bases.decode()
    return bases[:size]


def consensus(vcf: str, fasta: pathlib.Path, sample: str, side: int) -> tuple[str, list[int]]:
    """bcftools' haplotype of a sample, and the positions of the records that it left out."""
    text = pysam.bcftools.consensus("-H", str(side + 1), "-s", sample, "-f", str(fasta), vcf)
    messages = pysam.bcftools.consensus.get_messages()
    skipped = re.findall(r"The site \S+:(\d+) overlaps with another variant", messages)
    return "".join(text.splitlines()[1:]), [int(position) for position in skipped]


@pytest.mark.parametrize("name", PANELS)
def test_haplotypes_of_the_1000_genomes_equal_bcftools_consensus(name, real_data, tmp_path):
    """Whole haplotypes of seeded people, base for base.

    Where bcftools leaves a record out, ours may differ: it takes what both alleles of a record
    begin with for a change. Those haplotypes are not compared.
    """
    vcf, fasta = PANELS[name]
    source = real_data / "variants" / f"{vcf}.vcf.gz"
    (reference,) = read_fasta(real_data / "genomes" / "human" / f"{fasta}.fa.gz")
    region = f"{reference.start + 1}-{reference.start + len(reference.bases)}"
    indexed, written = tmp_path / "panel.bcf", tmp_path / "reference.fa"
    pysam.bcftools.view("-Ob", "-o", str(indexed), str(source), catch_stdout=False)
    pysam.bcftools.index(str(indexed))
    panel, counts = open_panel(source), Counts()
    if name == "chr20":
        reference = Contig("20", reference.bases, reference.start, 0, 0, 0)
    written.write_text(f">{reference.name}:{region}\n{reference.bases.tobytes().decode()}\n")
    found = [a for _, a in read_alleles(panel, held(reference), counts)]
    packed = packed_of(found, reference, panel)
    rng = np.random.default_rng(0)
    compared = 0
    for number in rng.choice(panel.haplotypes, 24, replace=False).tolist():
        sample, side = panel.samples[number // 2], number % 2
        expected, left_out = consensus(str(indexed), written, sample, side)
        if not left_out:
            assert whole(packed, reference, number) == expected, (sample, side)
            compared += 1
    assert compared >= 12
    assert counts.missing == counts.unphased == 0


def test_one_change_of_every_kind(tmp_path):
    path = write_vcf(
        tmp_path / "kinds.vcf",
        [
            "2 C T 0|1 0|0",  # SNV
            "4 TAC T 0|1 0|0",  # deletion
            "8 T TGG 1|0 0|1",  # insertion
            "12 CAA GT 0|0 1|0",  # replacement
            "20 T G,C 1|2 0|2",  # several ALT
        ],
    )
    found, counts = sequences(path, contig())
    assert found == [
        "ACGTACGT" + "GG" + "TTGCAACCGGT" + "G" + "ACGATCGATT",
        "A" + "T" + "GT" + "GTTTGCAACCGGT" + "C" + "ACGATCGATT",
        "ACGTACGTTTG" + "GT" + "CCGGTTACGATCGATT",
        "ACGTACGT" + "GG" + "TTGCAACCGGT" + "C" + "ACGATCGATT",
    ]
    assert (counts.records, counts.alleles, counts.carriers) == (5, 6, 8)
    assert not counts.skipped
    assert found == by_bcftools(path, tmp_path)


def by_bcftools(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """All haplotypes of the contig of `REFERENCE`, whole."""
    fasta, indexed = folder / "c.fa", folder / "indexed.bcf"
    fasta.write_text(f">c\n{REFERENCE}\n")
    pysam.bcftools.view("-Ob", "-o", str(indexed), str(path), catch_stdout=False)
    pysam.bcftools.index(str(indexed), "-f")
    with pysam.VariantFile(str(path)) as file:
        samples = list(file.header.samples)
    return [consensus(str(indexed), fasta, name, side)[0] for name in samples for side in (0, 1)]


def test_overlapping_records_first_come_first_served(tmp_path):
    """The change that starts further left holds; the one that conflicts is counted."""
    path = write_vcf(
        tmp_path / "overlap.vcf",
        [
            "4 TACG T 1|0 0|1",  # deletes 5 to 7
            "6 C A 1|1 0|0",  # within, for the first haplotype
            "8 T G 1|0 0|1",  # behind it: no conflict
        ],
    )
    found, counts = sequences(path, contig())
    assert found == [
        "ACGT" + "G" + REFERENCE[8:],
        REFERENCE[:5] + "A" + REFERENCE[6:],
        REFERENCE,
        "ACGT" + "G" + REFERENCE[8:],
    ]
    assert counts.skipped == {Skipped.CONFLICT: 1}
    assert found == by_bcftools(path, tmp_path)


def test_an_anchor_base_is_no_change(tmp_path):
    """An SNV at the anchor of a deletion and two insertions: bcftools leaves such records out."""
    path = write_vcf(
        tmp_path / "anchor.vcf",
        [
            "4 T G 1|0 1|0",
            "4 TAC T 1|0 0|1",
            "8 T TGG 1|0 1|0",
            "8 T TC 1|0 0|1",  # a second insertion at the same place
        ],
    )
    found, counts = sequences(path, contig())
    assert found == [
        "ACG" + "G" + "GT" + "GG" + REFERENCE[8:],
        REFERENCE,
        "ACG" + "G" + "ACGT" + "GG" + REFERENCE[8:],
        "ACGT" + "GT" + "C" + REFERENCE[8:],
    ]
    assert counts.skipped == {Skipped.CONFLICT: 1}


def test_records_that_are_not_trimmed_stand_in_the_order_of_their_changes(tmp_path):
    """A change may begin behind that of a later record."""
    path = write_vcf(tmp_path / "order.vcf", ["2 CGTACG CGTACT 1|0 0|0", "4 T A 1|0 0|1"])
    found, counts = sequences(path, contig())
    assert found[0] == "ACG" + "A" + "AC" + "T" + REFERENCE[7:]
    assert not counts.skipped


def test_missing_unphased_and_haploid_genotypes(tmp_path):
    """Missing is the reference; unphased is read as written; a single call is both haplotypes."""
    path = write_vcf(
        tmp_path / "calls.vcf",
        ["2 C T .|1 0/1 1", "6 C A 1/1 ./. ."],
        samples="one two three",
    )
    first = REFERENCE[:1] + "T" + REFERENCE[2:]
    second = REFERENCE[:5] + "A" + REFERENCE[6:]
    both = first[:5] + "A" + first[6:]
    found, counts = sequences(path, contig())
    assert found == [second, both, REFERENCE, first, first, first]
    assert (counts.missing, counts.unphased) == (4, 1)


def test_an_alternative_that_is_the_reference_is_counted(tmp_path):
    path = write_vcf(tmp_path / "same.vcf", ["2 C C,T 1|2 0|1"])
    found, counts = sequences(path, contig())
    assert found[1] == REFERENCE[:1] + "T" + REFERENCE[2:]
    assert (counts.alleles, counts.skipped) == (1, {Skipped.SAME: 1})


def test_what_cannot_be_applied_is_counted(tmp_path):
    path = write_vcf(
        tmp_path / "odd.vcf",
        [
            "3 G <DEL>,* 1|0 2|0",
            "5 A A]c:9] 1|0 0|0",
            "6 C N 1|0 0|0",
            "7 G GACGTACGTACGT 1|0 0|0",
            "9 T A 0|0 0|0",
            "d 4 T A 1|0 0|0",
            "d 5 T A 1|0 0|0",
        ],
    )
    found, counts = sequences(path, contig(), longest=5)
    assert found == [REFERENCE] * 4
    assert counts.skipped == {
        Skipped.SYMBOLIC: 3,
        Skipped.UNKNOWN: 1,
        Skipped.LONG: 1,
        Skipped.RARE: 1,
        Skipped.ABSENT: 2,
    }


def test_samples_and_rare_alleles_are_chosen(tmp_path):
    path = write_vcf(tmp_path / "few.vcf", ["2 C T 1|0 1|1", "6 C A 1|0 0|0"])
    second = REFERENCE[:1] + "T" + REFERENCE[2:]
    assert sequences(path, contig(), samples=["two"])[0] == [second, second]
    assert sequences(path, contig(), exclude=["one"])[0] == [second, second]
    found, counts = sequences(path, contig(), min_count=2)
    assert found == [second, REFERENCE, second, second]
    assert counts.skipped == {Skipped.RARE: 1}


def test_a_piece_of_a_contig_has_its_coordinates(tmp_path):
    path = write_vcf(tmp_path / "piece.vcf", ["2 C T 1|1 0|0", "12 C G 0|1 0|0", "29 TT T 1|0 0|0"])
    found, counts = sequences(path, contig(REFERENCE[10:20], start=10))
    assert found == [REFERENCE[10:20], "G" + "G" + REFERENCE[12:20], *[REFERENCE[10:20]] * 2]
    assert counts.skipped == {Skipped.OUTSIDE: 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["6 C T 0|1 0|0", "2 C T 0|1 0|0"], r"record 2, c:2: behind c:6; sort the file"),
        (
            ["2 C T 0|1 0|0", "d 2 C T 0|1 0|0", "c 3 G T 0|1 0|0"],
            r"record 3, c:3: c comes twice; sort",
        ),
        (["2 G T 0|1 0|0"], r"record 1, c:2: REF is G, the reference has C; give the reference"),
        (["2 C T 0|1|1 0|0|0"], r"record 1, c:2: 3 alleles a genotype; only ploidy 1 and 2"),
        (["d 2 C T 0|1 0|0"], r"none of its contigs is in the reference \(c\)"),
        (["chrC 2 C T 0|1 0|0"], r"its contig chrC is c in the reference; rename one of them"),
    ],
)
def test_bad_records_are_one_clear_line(tmp_path, rows, message):
    path = write_vcf(tmp_path / "bad.vcf", rows)
    with pytest.raises(InputError, match=message):
        sequences(path, contig())


def test_records_of_another_reference_can_be_skipped(tmp_path):
    path = write_vcf(tmp_path / "bad.vcf", ["2 G T 0|1 0|0", "6 C A 1|0 0|0"])
    found, counts = sequences(path, contig(), skip_mismatches=True)
    assert found[0] == REFERENCE[:5] + "A" + REFERENCE[6:]
    assert counts.skipped == {Skipped.MISMATCH: 1}


def test_files_that_are_no_panels(tmp_path, real_data):
    path = write_vcf(tmp_path / "few.vcf", ["2 C T 1|0 1|1"])
    with pytest.raises(InputError, match=r"none of its 2 samples is named tow; did you mean 'two'"):
        open_panel(path, samples=["tow"])
    with pytest.raises(InputError, match="no sample is left"):
        open_panel(path, exclude=["one", "two"])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        open_panel(tmp_path / "none.vcf")
    text = tmp_path / "text.vcf"
    text.write_text("no VCF\n")
    with pytest.raises(InputError, match="no VCF or BCF"):
        open_panel(text)
    sites = real_data / "variants" / "1kg_p3_chr20_1-2Mb_sites_vg.vcf.gz"
    with pytest.raises(InputError, match="no samples in it"):
        open_panel(sites)


def test_a_file_that_was_cut_off(tmp_path, real_data):
    source = real_data / "variants" / f"{PANELS['chr20'][0]}.vcf.gz"
    cut = tmp_path / "cut.vcf.gz"
    cut.write_bytes(source.read_bytes()[:200_000])
    with pytest.raises(InputError, match=r"cut\.vcf\.gz: .*(cut off|too early|damaged)"):
        for _ in read_alleles(open_panel(cut), held(contig(name="20")), Counts()):
            pass
