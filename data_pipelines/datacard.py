"""The data card: where a dataset comes from, what was counted; its presence marks a whole one."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.contigs import StagedContig
from data_pipelines.shards import Shard
from data_pipelines.staged import Staged
from data_pipelines.survey import Counts, Plan
from data_pipelines.windows import SPLITS
from nt_jax.errors import InputError

FORMAT = 1
"""Version of the layout; part of the fingerprint."""
DATACARD = "datacard.json"
"""Provenance and counts; its presence marks a complete dataset."""
INCOMPLETE = ".incomplete"
"""Suffix of the folder in which a dataset grows."""
_SCHEME = re.compile(r"(?!file)[a-z][a-z0-9]+:/+")


def local_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """The absolute path of a folder; InputError for a bucket, which ArrayRecord cannot open."""
    if _SCHEME.match(os.fspath(path)):
        raise InputError(
            f"{os.fspath(path)}: shards are read and written as files; mount the bucket (gcsfuse, "
            "mountpoint-s3), or copy the dataset (gcloud storage cp -r, aws s3 sync)"
        )
    return pathlib.Path(path).absolute()


def read_datacard(folder: pathlib.Path) -> dict[str, Any]:
    """datacard.json of a complete dataset.

    Raises InputError when the folder is missing, holds no dataset, or one that is not complete.
    """
    if not folder.is_dir():
        if folder.with_name(folder.name + INCOMPLETE).is_dir():
            raise InputError(
                f"{folder}: the dataset is not complete; run the same `nt-jax data build` again"
            )
        raise InputError(f"{folder}: no such folder; build it with `nt-jax data build`")
    if folder.name.endswith(INCOMPLETE):
        raise InputError(f"{folder}: an unfinished build; run the same `nt-jax data build` again")
    try:
        card = json.loads((folder / DATACARD).read_text())
        return card if card["format"] == FORMAT else _other_format(folder, card["format"])
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {DATACARD} in it, so no dataset of this program; build one with "
            "`nt-jax data build`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{folder / DATACARD}: damaged; build the dataset again") from None


def has_haplotypes(card: dict[str, Any]) -> bool:
    """Whether the records of a dataset have alleles beside the reference."""
    return any("haplotypes" in source for source in card["sources"])


def _other_format(folder: pathlib.Path, found: Any) -> dict[str, Any]:
    raise InputError(
        f"{folder / DATACARD}: format {found}, this version reads {FORMAT}; build it again"
    )


def make_datacard(
    arguments: dict[str, Any],
    fingerprint: str,
    plan: Plan,
    staged: Mapping[str, Staged],
    shards: Sequence[Shard],
) -> dict[str, Any]:
    """What `build` writes as datacard.json."""
    sources = []
    length = arguments["recipe"]["length"]
    of_source: dict[str, list[tuple[StagedContig, Counts]]] = {}
    for contig, counted in zip(plan.contigs, plan.counts, strict=True):
        of_source.setdefault(contig.source, []).append((contig, counted))
    for identity in arguments["sources"]:
        own = [contig for contig, _ in of_source[identity["name"]]]
        counts = [counted for _, counted in of_source[identity["name"]]]
        bases, n = sum(c.length for c in own), sum(c.n for c in own)
        if "haplotypes" in identity:
            read = staged[identity["name"]].counts
            identity = {**identity, "haplotypes": {**identity["haplotypes"], "read": read}}
        sources.append(
            {
                **identity,
                "contigs": len(own),
                "bases": bases,
                "n": n,
                "gc": round(sum(c.gc for c in own) / max(1, bases - n), 6),
                "soft_masked": sum(c.soft_masked for c in own),
                "converted_u": sum(c.converted_u for c in own),
                "iupac": sum(c.iupac for c in own),
                "windows": {
                    split: sum(c.windows[code] for c in counts) for code, split in enumerate(SPLITS)
                },
                "dropped": {
                    "short_contigs": sum(c.length < length for c in own),
                    "n_windows": sum(c.n_windows for c in own),
                    "boundary_windows": sum(c.boundary_windows for c in counts),
                },
                "bases_in_windows": sum(c.bases_in_windows for c in counts),
                "dropped_bases": {
                    reason: sum(c.dropped_bases[reason] for c in counts)
                    for reason in counts[0].dropped_bases
                },
            }
        )
    blocks = {s.block for s in plan.splits} if arguments["seed"] is not None else set()
    return {
        **{key: value for key, value in arguments.items() if key != "sources"},
        "fingerprint": fingerprint,
        "split_block_bases": blocks.pop() if blocks else None,
        "splits": {
            split: sum(source["windows"][split] for source in sources)
            for split in SPLITS
            if any(source["windows"][split] for source in sources)
        },
        "dropped": {
            reason: sum(source["dropped"][reason] for source in sources)
            for reason in ("short_contigs", "n_windows", "boundary_windows")
        },
        **_groups(sources),
        "sources": sources,
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }


def _groups(sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Assemblies, species, bases and windows of each group, where sources have one."""
    groups: dict[str, dict[str, Any]] = {}
    species: dict[str, set[str]] = {}
    for source in sources:
        if "group" not in source:
            continue
        name = source["group"]
        own = groups.setdefault(
            name, {"assemblies": 0, "species": 0, "bases": 0, "windows": dict.fromkeys(SPLITS, 0)}
        )
        species.setdefault(name, set()).add(source["species"])
        own["assemblies"] += 1
        own["species"] = len(species[name])
        own["bases"] += source["bases"]
        for split in SPLITS:
            own["windows"][split] += source["windows"][split]
    return {"groups": groups} if groups else {}
