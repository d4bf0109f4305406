"""The simulated genome keeps what its annotation, variants and tasks say, read from the files."""

import collections
import csv
import itertools
import json
import pathlib
import subprocess
import sys

import cyvcf2
import numpy as np
import pytest

from data_pipelines import simulate as simulation
from data_pipelines.simulated_tasks import REGIONS
from nt_jax.errors import InputError

SAMPLES = 3
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
Feature = collections.namedtuple("Feature", "contig kind start end strand phase attributes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("simulated") / "genome"
    simulation.simulate(out, seed=3, megabases=0.4, samples=SAMPLES)
    return out


@pytest.fixture(scope="module")
def genome(folder) -> dict[str, str]:
    contigs: dict[str, list[str]] = {}
    for line in (folder / "genome.fa").read_text().splitlines():
        if line.startswith(">"):
            assert " simulated " in line
            parts = contigs.setdefault(line[1:].split()[0], [])
        else:
            parts.append(line)
    return {name: "".join(parts) for name, parts in contigs.items()}


@pytest.fixture(scope="module")
def features(folder) -> list[Feature]:
    """GFF3 rows with 0-based half-open coordinates."""
    rows = []
    for line in (folder / "genes.gff3").read_text().splitlines():
        if not line.startswith("#"):
            contig, _, kind, start, end, _, strand, phase, notes = line.split("\t")
            attributes = dict(note.split("=") for note in notes.split(";"))
            rows.append(Feature(contig, kind, int(start) - 1, int(end), strand, phase, attributes))
    return rows


def sense(genome: dict[str, str], feature: Feature, before: int = 0, behind: int = 0) -> str:
    """Bases of a feature in the direction of transcription, with flanks."""
    text = genome[feature.contig]
    if feature.strand == "-":
        return text[feature.start - behind : feature.end + before].translate(COMPLEMENT)[::-1]
    return text[feature.start - before : feature.end + behind]


def of_kind(features: list[Feature], kind: str) -> list[Feature]:
    found = [feature for feature in features if feature.kind == kind]
    assert found, kind
    return found


def by_parent(features: list[Feature], kind: str) -> dict[str, list[Feature]]:
    """Parts of each transcript in the order of transcription."""
    groups = collections.defaultdict(list)
    for feature in of_kind(features, kind):
        groups[feature.attributes["Parent"]].append(feature)
    return {
        name: sorted(group, key=lambda f: f.start if f.strand == "+" else -f.start)
        for name, group in groups.items()
    }


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(folder, tmp_path):
    simulation.simulate(tmp_path / "twin", seed=3, megabases=0.4, samples=SAMPLES)
    simulation.simulate(tmp_path / "other", seed=4, megabases=0.4, samples=SAMPLES)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 5 + 9
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "twin" / file).read_bytes(), file
        assert (folder / file).read_bytes() != (tmp_path / "other" / file).read_bytes(), file


def test_summary_tells_what_the_files_hold(folder, genome, features):
    values = json.loads((folder / "simulation.json").read_text())
    assert values["kind"] == "simulated"
    assert values["seed"] == 3
    assert values["chromosomes"] == {name: len(text) for name, text in genome.items()}
    assert values["bases"] == sum(map(len, genome.values())) == 400_000
    assert values["genes"] == len(of_kind(features, "gene"))
    assert values["introns"] == len(of_kind(features, "intron"))
    assert "SIMULATED" in (folder / "README.txt").read_text()


def test_sequences_have_isochores_and_one_gap(genome, features):
    for gap in of_kind(features, "gap"):
        assert genome[gap.contig].count("N") == gap.end - gap.start > 0
        assert set(genome[gap.contig][gap.start : gap.end]) == {"N"}
    assert set("".join(genome.values())) == set("ACGTN")
    gc = [
        (piece.count("G") + piece.count("C")) / len(piece)
        for text in genome.values()
        for piece in [text[at : at + 10_000] for at in range(0, len(text) - 9_999, 10_000)]
    ]
    assert max(gc) - min(gc) > 0.08


def test_annotation_is_valid_gff3(folder, genome, features):
    lines = (folder / "genes.gff3").read_text().splitlines()
    assert lines[0] == "##gff-version 3"
    assert {line for line in lines if line.startswith("##sequence-region")} == {
        f"##sequence-region {name} 1 {len(text)}" for name, text in genome.items()
    }
    spans = {}
    for feature in features:
        assert 0 <= feature.start < feature.end <= len(genome[feature.contig])
        assert (feature.phase in "012") == (feature.kind == "CDS")
        parent = feature.attributes.get("Parent")
        if parent:  # stands behind its parent, on its strand, within its span
            contig, start, end, strand = spans[parent]
            assert (contig, strand) == (feature.contig, feature.strand)
            assert start <= feature.start
            assert feature.end <= end
        if "ID" in feature.attributes and feature.kind != "CDS":
            assert feature.attributes["ID"] not in spans
            spans[feature.attributes["ID"]] = (
                feature.contig,
                feature.start,
                feature.end,
                feature.strand,
            )
    order = [(list(genome).index(f.contig), f.start) for f in features]
    assert order == sorted(order)


def test_introns_are_gt_ag_with_a_branch_point(genome, features):
    introns, branches = by_parent(features, "intron"), by_parent(features, "branch_site")
    exons = by_parent(features, "exon")
    assert {f.strand for group in introns.values() for f in group} == {"+", "-"}
    for name, group in introns.items():
        assert len(group) == len(branches[name]) == len(exons[name]) - 1
        for intron, branch, left, right in zip(
            group, branches[name], exons[name][:-1], exons[name][1:], strict=True
        ):
            text = sense(genome, intron)
            assert text[:2] == "GT"
            assert text[-2:] == "AG"
            assert {intron.start, intron.end} <= {left.start, left.end, right.start, right.end}
            to_end = (
                intron.end - branch.end if intron.strand == "+" else branch.start - intron.start
            )
            assert 15 <= to_end <= 40
            assert sense(genome, branch)[3] == "A"


def test_coding_sequences_read_from_start_to_stop(genome, features):
    lengths = []
    for parts in by_parent(features, "CDS").values():
        read = 0
        for part in parts:
            assert int(part.phase) == -read % 3
            read += part.end - part.start
        coding = "".join(sense(genome, part) for part in parts)
        codons = [coding[at : at + 3] for at in range(0, len(coding), 3)]
        assert len(coding) % 3 == 0
        assert codons[0] == "ATG"
        assert codons[-1] in ("TAA", "TAG", "TGA")
        assert not {"TAA", "TAG", "TGA"} & set(codons[:-1])
        lengths.append(len(codons))
    assert len(lengths) == len(of_kind(features, "gene"))


def test_codons_are_biased(genome, features):
    counts = collections.Counter(
        coding[at : at + 3]
        for parts in by_parent(features, "CDS").values()
        for coding in ["".join(sense(genome, part) for part in parts)]
        for at in range(3, len(coding) - 3, 3)
    )
    leucine = [counts[codon] for codon in ("TTA", "TTG", "CTT", "CTC", "CTA", "CTG")]
    assert max(leucine) > 2 * min(leucine)
    share = np.array(list(counts.values())) / counts.total()
    assert -(share * np.log2(share)).sum() < 5.8  # 5.93 bits without bias


def test_utrs_and_coding_parts_make_up_the_exons(features):
    covered = collections.Counter()
    for kind in ("five_prime_UTR", "CDS", "three_prime_UTR"):
        for feature in of_kind(features, kind):
            covered[feature.attributes["Parent"]] += feature.end - feature.start
    for name, exons in by_parent(features, "exon").items():
        assert covered[name] == sum(exon.end - exon.start for exon in exons)


def test_tata_boxes_lie_30_bases_in_front_of_the_start_site(genome, features):
    genes = {f.attributes["ID"]: f for f in of_kind(features, "gene")}
    boxes = of_kind(features, "TATA_box")
    assert 0.5 * len(genes) < len(boxes) < len(genes)
    for box in boxes:
        gene = genes[box.attributes["gene"]]
        distance = gene.start - box.start if gene.strand == "+" else box.end - gene.end
        assert 28 <= distance <= 33
        assert sense(genome, box).startswith("TATA")
        assert box.strand == gene.strand
    for promoter in of_kind(features, "promoter"):
        gene = genes[promoter.attributes["gene"]]
        ends = (promoter.end, gene.start) if gene.strand == "+" else (promoter.start, gene.end)
        assert ends[0] == ends[1]


def test_transcripts_end_behind_a_polya_signal(genome, features):
    genes = {f.attributes["ID"]: f for f in of_kind(features, "mRNA")}
    for signal in of_kind(features, "polyA_signal_sequence"):
        gene = genes[signal.attributes["Parent"]]
        behind = gene.end - signal.end if gene.strand == "+" else signal.start - gene.start
        assert 10 <= behind <= 30
        assert sense(genome, signal) == "AATAAA"


def test_repeat_families_have_related_copies(genome, features):
    copies = collections.defaultdict(list)
    for feature in of_kind(features, "dispersed_repeat"):
        copies[feature.attributes["Name"]].append(sense(genome, feature))
    assert len(copies) == 5
    for family, texts in copies.items():
        ends = np.array([[*text[-50:]] for text in texts if len(text) >= 60])
        consensus = [collections.Counter(column).most_common(1)[0][0] for column in ends.T]
        identity = (ends == consensus).mean()
        assert 0.8 < identity < 0.995, family  # unrelated sequences agree at about 0.3


def test_genes_and_repeats_do_not_overlap(features):
    blocks = collections.defaultdict(list)
    for kind in ("mRNA", "promoter", "dispersed_repeat", "microsatellite", "gap"):
        for feature in of_kind(features, kind):
            blocks[feature.contig].append((feature.start, feature.end))
    for spans in blocks.values():
        spans.sort()
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))


def test_variants_match_the_genome(folder, genome, features):
    splice = {
        (f.contig, at)
        for f in of_kind(features, "intron")
        for at in (f.start, f.start + 1, f.end - 2, f.end - 1)
    }
    reader = cyvcf2.VCF(str(folder / "variants.vcf"))
    assert reader.samples == ["SIM0001", "SIM0002", "SIM0003"]
    assert dict(zip(reader.seqnames, reader.seqlens, strict=True)) == {
        name: len(text) for name, text in genome.items()
    }
    kinds = collections.Counter()
    regions = collections.Counter()
    end = dict.fromkeys(genome, 0)
    for variant in reader:
        (alt,) = variant.ALT
        assert genome[variant.CHROM][variant.start : variant.end] == variant.REF
        assert alt != variant.REF
        assert set(variant.REF + alt) <= set("ACGT")
        assert variant.start >= end[variant.CHROM]
        end[variant.CHROM] = variant.end
        kinds["snv" if len(variant.REF) == len(alt) == 1 else variant.var_type] += 1
        if len(variant.REF) != len(alt):  # anchored and left-aligned
            longer = max(variant.REF, alt, key=len)
            assert min(len(variant.REF), len(alt)) == 1
            assert longer[-1] != longer[0] == variant.REF[0] == alt[0]
        calls = np.array(variant.genotypes)
        assert calls[:, 2].all()  # phased
        assert variant.INFO["AC"] == calls[:, :2].sum() > 0
        assert variant.INFO["AN"] == 2 * SAMPLES
        changed = variant.start + (len(variant.REF) != len(alt))
        region = variant.INFO["REGION"]
        assert region in REGIONS
        assert (region == "splice_site") == ((variant.CHROM, changed) in splice)
        regions[region] += 1
    values = json.loads((folder / "simulation.json").read_text())
    assert sum(kinds.values()) == values["variants"]
    assert kinds["indel"] > 0.05 * kinds["snv"] > 10
    assert {"cds", "intron", "intergenic", "repeat", "promoter", "utr"} <= set(regions)


def read_task(folder: pathlib.Path, task: str, split: str) -> list[tuple[str, int]]:
    with (folder / "tasks" / task / f"{split}.csv").open() as file:
        rows = csv.DictReader(file)
        assert rows.fieldnames == ["sequence", "label"]
        return [(row["sequence"], int(row["label"])) for row in rows]


@pytest.mark.parametrize("task", ["promoters", "splice_sites", "coding"])
def test_tasks_are_balanced_and_share_no_sequence(folder, genome, task):
    values = json.loads((folder / "simulation.json").read_text())
    about = values["tasks"][task]
    seen: set[str] = set()
    for split, size in about["sequences"].items():
        rows = read_task(folder, task, split)
        counts = collections.Counter(label for _, label in rows)
        assert len(rows) == size
        assert set(counts) == set(range(len(about["labels"])))
        assert len(set(counts.values())) == 1
        assert min(counts.values()) >= 5
        sequences = {sequence for sequence, _ in rows}
        assert len(sequences) == len(rows)
        assert not seen & sequences
        seen |= sequences
        assert {len(sequence) for sequence in sequences} == {about["length"]}
        own = "|".join(genome[name] for name in values["splits"][split])
        for sequence in list(sequences)[:40]:
            assert sequence in own or sequence.translate(COMPLEMENT)[::-1] in own
        labels = [label for _, label in rows]
        assert labels != sorted(labels)
    names = [name for chosen in values["splits"].values() for name in chosen]
    assert sorted(names) == sorted(genome)


def test_splice_site_windows_are_centred(folder, features, genome):
    sites = set()
    for intron in of_kind(features, "intron"):
        text = sense(genome, intron, 100, 100)
        sites |= {(text[:200], 2), (text[-200:], 1)}
    for split in ("train", "dev", "test"):
        for sequence, label in read_task(folder, "splice_sites", split):
            if label == 0:
                assert sequence[100:102] == "GT" or sequence[98:100] == "AG"
            assert ((sequence, label) in sites) == (label != 0)


def test_promoter_windows_end_50_bases_into_the_transcript(folder, genome, features):
    starts = {
        sense(genome, promoter, behind=50): promoter for promoter in of_kind(features, "promoter")
    }
    gc = collections.defaultdict(list)
    for sequence, label in read_task(folder, "promoters", "train"):
        assert (sequence in starts) == (label == 1)
        gc[label].append((sequence.count("G") + sequence.count("C")) / len(sequence))
    assert abs(np.mean(gc[0]) - np.mean(gc[1])) < 0.01
    assert abs(np.std(gc[0]) - np.std(gc[1])) < 0.02


def test_coding_windows_lie_in_coding_exons(folder, genome, features):
    coding = "|".join(sense(genome, part) for part in of_kind(features, "CDS"))
    coding += "|" + coding.translate(COMPLEMENT)[::-1]
    for sequence, label in read_task(folder, "coding", "test"):
        assert (sequence in coding) == (label == 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--megabases", "0.1"], "--megabases 0.1: must be in 0.2..200"),
        (["--megabases", "nan"], "--megabases nan: must be in"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--samples", "0"], "--samples 0: must be at least 1"),
    ],
)
def test_command_refuses_bad_numbers_in_one_line(tmp_path, capsys, arguments, message):
    assert simulation.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("keep")
    with pytest.raises(InputError, match="exists and is no earlier simulation"):
        simulation.simulate(tmp_path, megabases=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_command_replaces_an_earlier_simulation_and_shows_progress(tmp_path, capsys):
    out = tmp_path / "out"
    for seed in ("1", "2"):
        command = ["--out", str(out), "--seed", seed, "--megabases", "0.2", "--samples", "1"]
        assert simulation.main(command) == 0
    assert json.loads((out / "simulation.json").read_text())["seed"] == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "chr6: 36000 bases" in captured.err


def test_importing_needs_no_jax():
    code = "import sys, data_pipelines.simulate; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
