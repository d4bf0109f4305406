"""Scores on disk: a part of a run, the annotated VCF, the Parquet table."""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam

from nt_jax.errors import InputError
from nt_jax.evaluation.results import Row, write_rows
from nt_jax.evaluation.variants import device, scores
from nt_jax.evaluation.variants.haplotypes import Reason
from nt_jax.evaluation.variants.labels import Label
from nt_jax.evaluation.variants.parts import Parts
from nt_jax.evaluation.variants.reading import Site, Source
from nt_jax.files import replacing

VCF, PARQUET = ".vcf.gz", ".parquet"
PREFIX = "NT_"
SKIPPED = PREFIX + "SKIPPED"
_TBI_BASES = 1 << 29
"""Positions that the .tbi format can hold."""
_ROWS_A_GROUP = 1 << 16
_Fields = tuple[str | None, tuple[float | None, ...]]
"""Of an allele why it was skipped, and its scores."""
_COLUMNS = ("chrom", "pos", "id", "ref", "alt", "skipped", "label", "group")
_TYPES = {"pos": pa.int64(), "label": pa.float64()}


def check_endings(outs: Sequence[pathlib.Path], has_header: bool) -> None:
    """Raises InputError for an output that is neither, or cannot be made of the input."""
    if not outs:
        raise InputError(f"--out: name a file that ends in {VCF} or {PARQUET}")
    for out in outs:
        if not out.name.endswith((VCF, PARQUET)):
            raise InputError(f"--out {out}: variants are written as {VCF} or {PARQUET}")
        if outs.count(out) > 1:
            raise InputError(f"--out {out}: named twice")
        if out.name.endswith(VCF) and not has_header:
            raise InputError(f"--out {out}: a table has no VCF header; write {PARQUET}")


def check_fields(source: Source, layers: Iterable[int]) -> None:
    """Raises InputError where the VCF has fields of ours already."""
    for name in (*map(info_name, scores.names(layers)), SKIPPED):
        if name in source.declared()[0]:
            raise InputError(
                f"{source.path}: has INFO/{name} already; remove the old scores with "
                f"bcftools annotate -x INFO/{name},..."
            )


def needs_order(outs: Iterable[pathlib.Path]) -> pathlib.Path | None:
    """The output that an index is made for, if there is one."""
    return next((out for out in outs if out.name.endswith(VCF)), None)


def info_name(score: str) -> str:
    """INFO field of a score."""
    return PREFIX + score.upper()


def part(
    rows: Sequence[tuple[Site, int]],
    reasons: Sequence[Reason | None],
    label: Label | None,
    group: str | None,
    found: scores.Scores,
    columns: Sequence[str],
) -> pa.Table:
    """One row an allele: what it is, why it was skipped, its label, its scores as float32."""
    values = [site.values[number] for site, number in rows]
    labels = [label.value(texts[0], "") if label else None for texts in values]
    plain: dict[str, list] = {
        "chrom": [site.chrom for site, _ in rows],
        "pos": [site.pos for site, _ in rows],
        "id": [None if site.id == "." else site.id for site, _ in rows],
        "ref": [site.ref or "-" for site, _ in rows],
        "alt": [site.alts[number] or "-" for site, number in rows],
        "skipped": [reason and reason.value for reason in reasons],
        "label": labels,
        "group": [texts[-1] if group else None for texts in values],
    }
    table = {name: pa.array(plain[name], _TYPES.get(name, pa.string())) for name in _COLUMNS}
    for name in columns:
        table[name] = pa.array(found[name], pa.float32(), mask=np.isnan(found[name]))
    return pa.table(table)


def write(
    out: pathlib.Path,
    parts: Parts,
    source: Source,
    layers: Sequence[int],
    contigs: Sequence[str],
    origin: str,
) -> None:
    """Writes one output, whole or not at all; `origin` says what made the scores."""
    if out.name.endswith(PARQUET):
        _write_parquet(out, parts, origin)
    else:
        _write_vcf(out, parts, source, scores.names(layers), contigs, origin)


def write_results(out: pathlib.Path, rows: Sequence[Row]) -> pathlib.Path:
    """Writes the tidy rows of a labelled set beside `out`; returns where."""
    stem = out.name.removesuffix(VCF).removesuffix(PARQUET)
    path = out.with_name(f"{stem}.results.parquet")
    write_rows(path, rows)
    return path


def _write_parquet(out: pathlib.Path, parts: Parts, origin: str) -> None:
    """Columns that are empty throughout (label, group) stay: one schema for all runs."""
    with replacing(out) as file:
        writer = None
        for tables in _gathered(parts.read()):
            table = pa.concat_tables(tables)
            if writer is None:
                schema = table.schema.with_metadata({"nt_jax_score": origin})
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()


def _gathered(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Small tables, enough of them for a row group."""
    kept: list[pa.Table] = []
    for table in tables:
        kept.append(table)
        if sum(map(len, kept)) >= _ROWS_A_GROUP:
            yield kept
            kept = []
    if kept:
        yield kept


def _write_vcf(
    out: pathlib.Path,
    parts: Parts,
    source: Source,
    names: Sequence[str],
    contigs: Sequence[str],
    origin: str,
) -> None:
    temporary = parts.folder / "annotated.vcf.gz"
    far = False
    with pysam.BGZFile(str(temporary), "wb", None) as file:
        for line in _header(source, names, contigs, origin):
            file.write(f"{line}\n".encode("utf-8", "surrogateescape"))
        fields = _fields(parts, names)
        for site in source.sites():
            mine = [next(fields) for _ in site.alts]
            line = _annotated(site, mine, names)
            file.write(f"{line}\n".encode("utf-8", "surrogateescape"))
            far |= site.pos + len(site.ref) >= _TBI_BASES
    pysam.tabix_index(str(temporary), preset="vcf", force=True, csi=far)
    ending = ".csi" if far else ".tbi"
    for old in (".tbi", ".csi"):
        out.with_name(out.name + old).unlink(missing_ok=True)
    # The index first: where the VCF is, its index is.
    os.replace(f"{temporary}{ending}", f"{out}{ending}")
    os.replace(temporary, out)


def _header(
    source: Source, names: Sequence[str], contigs: Sequence[str], origin: str
) -> Iterator[str]:
    assert source.header is not None
    yield from source.header
    declared = source.declared()[1]
    for contig in contigs:
        if contig not in declared:
            yield f"##contig=<ID={contig}>"
    yield f"##nt_jax_score={origin}"
    for name in names:
        yield (
            f'##INFO=<ID={info_name(name)},Number=A,Type=Float,Description="{description(name)}">'
        )
    yield (
        f"##INFO=<ID={SKIPPED},Number=.,Type=String,"
        'Description="Why an ALT allele has no scores, for each ALT; . where it has some">'
    )
    yield "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def description(name: str) -> str:
    """What a score is, in a line."""
    if name == scores.LLR:
        return "log P(ALT)/P(REF) in nats, marginal over k-mer phases and both strands"
    if name == scores.LLR_KMER:
        return "log P(ALT k-mer)/P(REF k-mer) in nats, k-mer masked, mean of both strands"
    found = re.fullmatch(r"l(\d+)_([a-z]+)_([a-z0-9]+)", name)
    assert found, name
    layer, place, distance = found.groups()
    where = {"window": "windows", "tokens": "the allele's tokens"}[place]
    what = dict(
        zip(
            device.DISTANCES,
            ("1 - cosine similarity", "Dot product", "L1 distance", "L2 distance"),
            strict=True,
        )
    )
    return f"{what[distance]} of the REF and ALT embeddings of {where}, layer {layer}"


def _fields(parts: Parts, names: Sequence[str]) -> Iterator[_Fields]:
    for table in parts.read(["skipped", *names]):
        yield from zip(
            table["skipped"].to_pylist(),
            zip(*(table[name].to_pylist() for name in names), strict=True),
            strict=True,
        )


def _annotated(site: Site, alleles: list[_Fields], names: Sequence[str]) -> str:
    """The record with our fields behind its own."""
    fields = [] if site.columns[7] in (".", "") else [site.columns[7]]
    if not all(skipped for skipped, _ in alleles):
        for number, name in enumerate(names):
            texts = [_text(values[number]) for _, values in alleles]
            fields.append(f"{info_name(name)}={','.join(texts)}")
    if any(skipped for skipped, _ in alleles):
        fields.append(f"{SKIPPED}={','.join(skipped or '.' for skipped, _ in alleles)}")
    return "\t".join([*site.columns[:7], ";".join(fields)])


def _text(value: float | None) -> str:
    return "." if value is None else f"{value:.6g}"
