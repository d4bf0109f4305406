"""`nt-jax score`: variants in, scores out; in parts that survive a kill, in constant memory.

The input is read three times: to check it, to score it chunk by chunk, and to write the annotated
copy. What is in memory is one chunk and, at the end, one column of the labelled alleles.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from nt_jax import workdir
from nt_jax.checkpoint import parse_checkpoint
from nt_jax.errors import InputError
from nt_jax.evaluation.embed import Pooling
from nt_jax.evaluation.embeddings import parameters_digest
from nt_jax.evaluation.loading import LoadedModel, load, random_like
from nt_jax.evaluation.variants import controls, haplotypes, labelled, output, scores
from nt_jax.evaluation.variants.haplotypes import Reason
from nt_jax.evaluation.variants.labels import Label, Tally, parse_label
from nt_jax.evaluation.variants.parts import Parts
from nt_jax.evaluation.variants.reading import Site, Source, open_vcf
from nt_jax.evaluation.variants.reference import Reference, open_reference
from nt_jax.evaluation.variants.tables import open_table
from nt_jax.progress import Progress, say, silent

CHUNK = 512
"""Records of a part."""
SHORTEST_WINDOW = 4
_DEFINITIONS = 1
"""Rises when a score gets another meaning, so that parts of both are never mixed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What scores depend on besides parameters, variants and reference."""

    window: int
    """Tokens of a window, `<cls>` included."""
    layers: tuple[int, ...]
    """Layers of the embedding distances, 1-based."""
    pooling: Pooling = "mean"
    """Pooling over the window."""
    label: Label | None = None
    group: str | None = None
    """INFO field or column; labelled sets are also scored within each of its values."""
    controls: bool = False
    """Whether a random initialisation is scored as well."""
    seed: int = 0
    """Seed of that initialisation and of the bootstrap."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """INFO fields or columns to read."""
        return tuple(name for name in (self.label and self.label.name, self.group) if name)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One run, everything checked and open."""

    loaded: LoadedModel
    untrained: LoadedModel | None
    log_counts: Float[np.ndarray, " kmers"] | None
    """Logarithms of the run's k-mer counts + 1."""
    reference: Reference
    source: Source
    settings: Settings

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the scores and of the controls in a part."""
        names = scores.names(self.settings.layers)
        drawn = tuple(controls.RANDOM + name for name in names) if self.untrained else ()
        unigram = (controls.UNIGRAM,) if self.log_counts is not None else ()
        return (*names, *controls.CHEAP, *unigram, *drawn)


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The middle layer and the last."""
    return tuple(sorted({max(1, num_layers // 2), num_layers}))


def score(
    checkpoint: str,
    fasta: str | pathlib.Path,
    outs: Sequence[pathlib.Path],
    *,
    vcf: str | pathlib.Path | None = None,
    table: str | pathlib.Path | None = None,
    layers: Sequence[int] | None = None,
    pooling: Pooling = "mean",
    window: int = 0,
    label: str | None = None,
    group: str | None = None,
    with_controls: bool = False,
    tell: Callable[[str], None] = say,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Scores all variants and writes `outs`; returns the summary that `--json` prints.

    Finished chunks lie in `OUT.parts` beside the first of `outs` until all is written. The same
    call goes on with them; `progress` gets (records done, records in all). Raises InputError for
    bad input, and where the parts there belong to another call.
    """
    outs = [pathlib.Path(out) for out in outs]
    output.check_endings(outs, has_header=vcf is not None)
    if group is not None and label is None:
        raise InputError("--group: scores are compared within groups where there is a --label")
    loaded = load(checkpoint)
    settings = Settings(
        window=_window(loaded, window),
        layers=tuple(sorted(set(loaded.check_layers(layers or default_layers(loaded.num_layers))))),
        pooling=pooling,
        label=parse_label(label) if label else None,
        group=group,
        controls=with_controls,
    )
    if vcf is not None:
        source = open_vcf(vcf, settings.wanted)
        output.check_fields(source, settings.layers)
    elif table is not None:
        source = open_table(table, settings.wanted)
    else:
        raise InputError("which variants? Give --vcf or --table")
    started = time.perf_counter()
    key = _key(loaded, settings, source, pathlib.Path(fasta))
    with Parts.owned(outs[0], key) as parts:
        job = Job(
            loaded,
            random_like(loaded, settings.seed) if with_controls else None,
            _log_counts(loaded, checkpoint) if settings.label else None,
            open_reference(fasta, parts.folder),
            source,
            settings,
        )
        contigs, records, texts = _survey(job, sorted_for=output.needs_order(outs))
        kept = parts.count()
        if kept:
            tell(f"going on behind {min(kept * CHUNK, records):,} of {records:,} records")
        _score_parts(job, parts, records, progress)
        summary = _summary(parts, checkpoint, loaded, records, outs)
        summary["seconds"] = round(time.perf_counter() - started, 3)
        for out in outs:
            output.write(out, parts, source, settings.layers, contigs, _origin(key, checkpoint))
        if settings.label:
            tell(f"ranking by {len(job.columns)} scores and controls, with intervals")
            summary["label"] = labelled.evaluate(
                parts, settings.label, settings.group, job.columns, settings.seed
            )
            if texts is not None:
                summary["label"]["texts"] = texts.plain()
            rows = list(labelled.rows(summary["label"], loaded, checkpoint, source.path))
            summary["results"] = str(output.write_results(outs[0], rows))
        parts.remove()
    return summary


def _window(loaded: LoadedModel, asked: int) -> int:
    window = asked or loaded.context
    longest = loaded.config.model.max_positions
    if not SHORTEST_WINDOW <= window <= longest:
        raise InputError(
            f"--window {window}: the model takes {SHORTEST_WINDOW} to {longest} tokens"
        )
    return window


def _key(
    loaded: LoadedModel, settings: Settings, source: Source, fasta: pathlib.Path
) -> dict[str, Any]:
    """All that the scores depend on; JSON."""
    plain = dataclasses.asdict(dataclasses.replace(settings, label=None))
    return json.loads(
        json.dumps(
            {
                "definitions": _DEFINITIONS,
                "parameters": parameters_digest(loaded),
                "tokenizer": dataclasses.asdict(loaded.config.tokenizer),
                **plain,
                "label": str(settings.label) if settings.label else None,
                "variants": _digest(source.path),
                "reference": _digest(fasta),
            }
        )
    )


def _digest(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _origin(key: dict[str, Any], checkpoint: str) -> str:
    """A line for the header: which checkpoint and settings made the scores."""
    shown = {name: key[name] for name in ("window", "layers", "pooling")}
    text = " ".join(f"{name}={value}" for name, value in shown.items())
    return f"checkpoint={checkpoint} parameters={key['parameters'][:16]} {text}"


def _log_counts(loaded: LoadedModel, checkpoint: str) -> Float[np.ndarray, " kmers"] | None:
    """None where the run stored no counts."""
    counts = workdir.stored_counts(parse_checkpoint(checkpoint)[0])
    if counts is None:
        return None
    return np.log(counts[slice(*loaded.tokenizer.kmer_ids)] + 1.0)


def _survey(job: Job, sorted_for: pathlib.Path | None) -> tuple[list[str], int, Tally | None]:
    """Reads the input once: its contigs in order, its records, the texts of a label that names
    some; raises InputError.
    """
    label, records = job.settings.label, 0
    texts = Tally(label) if label and label.test == "=" else None
    labels: set[float | None] = set()
    contigs: dict[str, None] = {}
    last = ("", 0)
    for site in job.source.sites():
        records += 1
        where = f"{job.source.path}: {site.where}"
        if sorted_for is not None:
            again = site.chrom != last[0] and site.chrom in contigs
            if again or (site.chrom == last[0] and site.pos < last[1]):
                raise InputError(
                    f"{where}: {site.chrom}:{site.pos} comes after {last[0]}:{last[1]}, and the "
                    f"index of {sorted_for} needs sorted records; sort them with bcftools sort"
                )
            last = (site.chrom, site.pos)
        contigs[site.chrom] = None
        for values in site.values if label else ():
            assert label is not None
            value = label.value(values[0], where)
            if texts is not None:
                texts.add(values[0], value)
            if len(labels - {None}) < 2:
                labels.add(value)
    if not records:
        raise InputError(f"{job.source.path}: no variant in it")
    if label and len(labels - {None}) < 2:
        found = ", ".join(f"{value:g}" for value in labels if value is not None) or "no value"
        raise InputError(f"{job.source.path}: --label {label} gives only {found}, nothing to rank")
    job.reference.check_contigs(contigs, job.source.path)
    return list(contigs), records, texts


def _score_parts(job: Job, parts: Parts, records: int, progress: Progress) -> None:
    done = 0
    for number, chunk in enumerate(_chunks(job.source.sites())):
        if not parts.has(number):
            parts.write(number, _part(job, chunk))
        done += len(chunk)
        progress(done, records)


def _chunks(sites: Iterator[Site]) -> Iterator[list[Site]]:
    while chunk := list(itertools.islice(sites, CHUNK)):
        yield chunk


def _part(job: Job, chunk: list[Site]) -> pa.Table:
    """One row an allele."""
    settings, tokenizer = job.settings, job.loaded.tokenizer
    reach = scores.reach(settings.window, tokenizer.k)
    longest = scores.longest_allele(settings.window, tokenizer.k)
    rows = [(site, number) for site in chunk for number in range(len(site.alts))]
    alleles = [
        haplotypes.locate(
            job.reference, site.chrom, site.pos, site.ref, site.alts[number], reach, longest
        )
        for site, number in rows
    ]
    prepared = scores.prepare(alleles, tokenizer, settings.window)
    found = scores.model_scores(job.loaded, prepared, settings.layers, settings.pooling)
    if job.untrained:
        drawn = scores.model_scores(job.untrained, prepared, settings.layers, settings.pooling)
        found |= {controls.RANDOM + name: values for name, values in drawn.items()}
    found |= controls.cheap_controls(
        [
            None if reason or isinstance(allele, Reason) else allele[0]
            for allele, reason in zip(alleles, prepared.reasons, strict=True)
        ]
    )
    if job.log_counts is not None:
        found[controls.UNIGRAM] = scores.unigram_llr(prepared, job.log_counts)
    return output.part(rows, prepared.reasons, settings.label, settings.group, found, job.columns)


def _summary(
    parts: Parts, checkpoint: str, loaded: LoadedModel, records: int, outs: Sequence[pathlib.Path]
) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    alleles = 0
    for table in parts.read(["skipped"]):
        alleles += len(table)
        skipped.update(text for text in table["skipped"].to_pylist() if text)
    return {
        "checkpoint": checkpoint,
        "step": loaded.step,
        "device": jax.devices()[0].device_kind,
        "records": records,
        "alleles": alleles,
        "scored": alleles - skipped.total(),
        "skipped": dict(skipped.most_common()),
        "outputs": [str(out) for out in outs],
    }
