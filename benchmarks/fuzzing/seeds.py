"""Small excerpts of the real files that are mutated."""

import dataclasses
import gzip
import itertools
import pathlib
import tempfile
from collections.abc import Iterator

import pysam.bcftools

from fuzzing.containers import packed

CONTAINERS = ("plain", "gzip", "bgzf")
_FASTA = (
    # (file, records, bases skipped in each, bases taken of each)
    ("genomes/species/phage_phix174_microviridae_sft_set.fa.gz", 3, 0, 2_000),
    ("genomes/species/sars_cov_2_MT192765.fa.gz", 1, 0, 6_000),
    ("genomes/species/saccharomyces_cerevisiae_R64-1-1.fa.gz", 6, 1_000, 1_200),
    ("genomes/species/plasmodium_falciparum_3D7_chr1-2.fa.gz", 2, 5_000, 3_000),
    ("genomes/species/arabidopsis_thaliana_1pct.fa.gz", 7, 0, 900),
    ("genomes/species/pongo_orangutan_chrM.fa.gz", 1, 0, 4_000),
)
_PIECES = (
    "genomes/human/GRCh38_chr22_16600000-16800000.fa.gz",
    "genomes/human/GRCh37_chr20_1000001-2000000.fa.gz",
)
_VCF = (
    # (file, its reference, 1-based first base of the excerpt, samples)
    ("variants/1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz", _PIECES[0], 16_656_000, 8),
    ("variants/1kg_p3_chr20_1-4Mb_300samples_GRCh37.vcf.gz", _PIECES[1], 1_338_000, 8),
)
_SPAN = 1_500
_RECORDS = 40


@dataclasses.dataclass(frozen=True)
class Seed:
    """An excerpt of one real file."""

    format: str
    """"fasta" or "vcf"."""
    text: bytes
    reference: bytes = b""
    """For a VCF: FASTA text of the stretch that its records change."""
    bcf: bytes = b""
    """For a VCF: the same as BCF, in BGZF."""

    def file(self, container: str) -> bytes:
        """The excerpt as a file, unharmed."""
        return self.bcf if container == "bcf" else packed(self.text, container)


def seeds(data: pathlib.Path) -> tuple[list[Seed], list[Seed]]:
    """(FASTA, VCF) excerpts of the real files in `data`."""
    fasta = [_fasta(data / name, *rest) for name, *rest in _FASTA]
    for piece in _PIECES:
        name, first, bases = _piece(data / piece)
        fasta.append(Seed("fasta", _wrapped(name.encode(), first + 20_000, bases[20_000:24_000])))
    return fasta, [_vcf(data / name, data / piece, *rest) for name, piece, *rest in _VCF]


def _records(path: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
    """(header line, bases) of each record of a well-formed file."""
    with gzip.open(path) as stream:
        header, lines = b"", []
        for line in stream:
            if line.startswith(b">"):
                if header:
                    yield header, b"".join(lines)
                header, lines = line, []
            else:
                lines.append(line.strip())
        yield header, b"".join(lines)


def _fasta(path: pathlib.Path, records: int, skip: int, take: int) -> Seed:
    text = b""
    for header, bases in itertools.islice(_records(path), records):
        name, _, rest = header.partition(b" ")
        name = name.split(b":")[0].strip()  # the excerpt has other coordinates
        text += name + b" " + rest.strip() + b"\n" + _lines(bases[skip : skip + take])
    return Seed("fasta", text)


def _piece(path: pathlib.Path) -> tuple[str, int, bytes]:
    """(name, 1-based first base, bases) of a file with one `NAME:START-END` record."""
    header, bases = next(_records(path))
    name, _, span = header[1:].split()[0].decode().partition(":")
    return name, int(span.split("-")[0]), bases


def _wrapped(name: bytes, first: int, bases: bytes) -> bytes:
    return b">%b:%d-%d\n" % (name, first, first + len(bases) - 1) + _lines(bases)


def _lines(bases: bytes) -> bytes:
    return b"".join(bases[at : at + 60] + b"\n" for at in range(0, len(bases), 60))


def _vcf(path: pathlib.Path, piece: pathlib.Path, first: int, samples: int) -> Seed:
    """Records of the stretch that one of the samples carries, without their INFO."""
    name, start, bases = _piece(piece)
    reference = _wrapped(name.encode(), first, bases[first - start : first - start + _SPAN])
    header = [
        b"##fileformat=VCFv4.2",
        b"##contig=<ID=%b>" % name.encode(),
        b'##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    ]
    rows: list[bytes] = []
    with gzip.open(path) as stream:
        for line in stream:
            if line.startswith(b"##"):
                continue
            columns = line.rstrip(b"\n").split(b"\t")
            own = columns[9:]
            # Every n-th sample, so that the excerpt has people of all groups.
            own = own[:: max(1, len(own) // samples)][:samples]
            if line.startswith(b"#"):
                header.append(b"\t".join([*columns[:9], *own]))
                continue
            position = int(columns[1])
            if position >= first + _SPAN or len(rows) == _RECORDS:
                break
            if position >= first and any(b"1" in call or b"2" in call for call in own):
                rows.append(b"\t".join([*columns[:7], b".", columns[8], *own]))
    text = b"\n".join([*header, *rows]) + b"\n"
    return Seed("vcf", text, reference, _as_bcf(text))


def _as_bcf(text: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "a.vcf", pathlib.Path(folder) / "a.bcf"
        source.write_bytes(text)
        pysam.bcftools.view(
            "-Ob", "--no-version", "-o", str(target), str(source), catch_stdout=False
        )
        return target.read_bytes()
