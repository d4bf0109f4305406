"""What `nt-jax data verify` found, as tables for a terminal and for a page."""

import dataclasses
from collections.abc import Iterator, Sequence

from data_pipelines import sketch
from data_pipelines.near import IDENTITY, SHARE
from data_pipelines.verify import Report, SourceFacts, most_near
from nt_jax.report.plots import tokens_text

LISTED = 40
"""Sources that are listed one by one; of more, the groups are, or the largest."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Plain text; the first column is a name, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()
    """What stands below it, a line each."""


def tables(report: Report) -> Iterator[Table]:
    """All that the dataset has something for."""
    yield _splits(report)
    yield _sources(report)
    if report.groups and any(group.published_species for group in report.groups.values()):
        yield _published(report)
    yield _leakage(report)
    if any(found.examples for found in report.near.values()):
        yield _examples(report)
    if report.tasks:
        yield _tasks(report)


def source_rows(report: Report) -> list[SourceFacts]:
    """The sources; of very many, one row a group, or the largest and a row of all others."""
    sources = list(report.sources)
    if len(sources) <= LISTED:
        return sources
    if any(source.group for source in sources):
        names = list(dict.fromkeys(source.group for source in sources))
        return [_summed(name, [s for s in sources if s.group == name]) for name in names]
    sources.sort(key=lambda source: -source.bases)
    rest = sources[LISTED - 1 :]
    return [*sources[: LISTED - 1], _summed(f"{len(rest):,} others", rest)]


def near_limit(report: Report, pair: str) -> float | None:
    """Share of near-duplicates from which on a pair of splits is a problem; None if never."""
    first, second = pair.split("/")
    if second != "train" or first == "train":
        return None
    return most_near(report.near["train/train"])


def _splits(report: Report) -> Table:
    header = ("split", "windows", "N", "repeated", "repeated, other strand")
    rows = tuple(
        (
            name,
            f"{count:,}",
            f"{report.n_share[name]:.2%}",
            f"{report.duplicates[name]:,}",
            f"{report.duplicates_reversed[name]:,}",
        )
        for name, count in report.windows.items()
    )
    return Table("Windows", header, rows, (f"{report.shards:,} shards read without a fault",))


def _sources(report: Report) -> Table:
    shown = source_rows(report)
    varied = any(source.haplotypes for source in shown)
    grouped = len(report.sources) > len(shown) and any(s.group for s in report.sources)
    header = ["group" if grouped else "source", "contigs", "bases", "N", "soft-masked", "GC"]
    header += ["haplotypes"] * varied + list(report.windows)
    if len(shown) > 1:
        shown = [*shown, _summed("all", report.sources)]
    rows = []
    for source in shown:
        row = [source.name, f"{source.contigs:,}", f"{source.bases:,}"]
        row += [f"{part / max(1, source.bases):.2%}" for part in (source.n, source.soft_masked)]
        row += [f"{source.gc:.1%}"] + [f"{source.haplotypes:,}"] * varied
        row += [f"{source.windows.get(split, 0):,}" for split in report.windows]
        rows.append(tuple(row))
    return Table("Sources", tuple(header), tuple(rows))


def _summed(name: str, sources: Sequence[SourceFacts]) -> SourceFacts:
    known = sum(source.bases - source.n for source in sources)
    splits = dict.fromkeys(split for source in sources for split in source.windows)
    return SourceFacts(
        name=name,
        group=name,
        contigs=sum(source.contigs for source in sources),
        bases=sum(source.bases for source in sources),
        n=sum(source.n for source in sources),
        soft_masked=sum(source.soft_masked for source in sources),
        gc=sum(source.gc * (source.bases - source.n) for source in sources) / max(1, known),
        windows={
            split: sum(source.windows.get(split, 0) for source in sources) for split in splits
        },
        haplotypes=sum(source.haplotypes for source in sources),
    )


def _published(report: Report) -> Table:
    header = ("group", "species", "published", "bases", "published")
    rows = [
        (
            name,
            f"{group.species:,}",
            "–" if group.published_species is None else f"{group.published_species:,}",
            tokens_text(group.bases),
            "–" if group.published_bases is None else tokens_text(group.published_bases),
        )
        for name, group in report.groups.items()
    ]
    every = report.groups.values()
    rows.append(
        (
            "all",
            f"{sum(group.species for group in every):,}",
            f"{sum(group.published_species or 0 for group in every):,}",
            tokens_text(sum(group.bases for group in every)),
            tokens_text(sum(group.published_bases or 0 for group in every)),
        )
    )
    return Table("Beside the published multispecies set", header, tuple(rows))


def _leakage(report: Report) -> Table:
    header: tuple[str, ...] = ("windows of", "in", "overlap", "same bases", "reverse complement")
    header += ("near-duplicates", "share", "leakage above", "half seen")
    rows = []
    lines = [
        f"near-duplicate: at least {IDENTITY:.0%} identical, by k-mers, over at least {SHARE:.0%} "
        "of the window to one place, on either strand; identical ones are counted too",
        f"half seen: at least {SHARE:.0%} of the {sketch.K}-mers are in the other split, anywhere",
    ]
    for pair, found in report.near.items():
        first, second = pair.split("/")
        between = first != second
        limit = near_limit(report, pair)
        same, reverse = report.shared, report.shared_reversed
        if not between:
            same, reverse = report.duplicates, report.duplicates_reversed
        key = pair if between else first
        rows.append(
            (
                first,
                second if between else f"{second}, elsewhere",
                f"{report.overlapping[pair]:,}" if between else "–",
                f"{same[key]:,}",
                f"{reverse[key]:,}",
                f"{found.near:,} of {found.looked_up:,}",
                f"{found.part:.2%}",
                "–" if limit is None else f"{limit:.1%}",
                "–" if found.seen is None else f"{found.seen:,}",
            )
        )
    return Table("Leakage and repeats", header, tuple(rows), tuple(lines))


def _examples(report: Report) -> Table:
    header = ("window", "of", "in", "most alike there", "strand", "identity", "share")
    rows = []
    for pair, found in report.near.items():
        first, second = pair.split("/")
        for example in found.examples:
            numbers = f"{example.identity:.2%}", f"{example.share:.0%}"
            rows.append((example.here, first, second, example.there, example.strand, *numbers))
    return Table("The worst near-duplicates", header, tuple(rows))


def _tasks(report: Report) -> Table:
    header: tuple[str, ...] = (
        "task",
        "split",
        "sequences",
        "looked up",
        "contained",
        "near-duplicates",
        "share",
    )
    header += ("half seen",)
    rows = []
    lines = [
        "in windows of train, on either strand; contained: every base; near-duplicate and half "
        "seen: as above, contained ones are counted too"
    ]
    for found in report.tasks:
        rows.append(
            (
                found.task,
                found.split,
                f"{found.sequences:,}",
                f"{found.looked_up:,}",
                f"{found.exact:,}",
                f"{found.near:,}",
                f"{found.near / max(1, found.looked_up):.1%}",
                f"{found.seen:,}",
            )
        )
        where = f"{found.task}, {found.split}"
        if found.contigs:
            listed = ", ".join(f"{name} {count:,}" for name, count in found.contigs.items())
            lines.append(f"{where}: most on {listed}")
        lines += [f"{where}: {example.text()}" for example in found.examples[:1]]
    return Table("Labelled sets in the training windows", header, tuple(rows), tuple(lines))
