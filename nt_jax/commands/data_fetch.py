"""`nt-jax data fetch`: the assemblies of a manifest, checked, in a folder."""

import argparse
import collections
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nt_jax.commands import options as common
from nt_jax.errors import InputError

if TYPE_CHECKING:
    from data_pipelines.assemblies import Outcome


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "manifest", metavar="MANIFEST", help="table of assemblies, or human_reference"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to fetch into")
    parser.add_argument("--workers", type=int, default=4, help="files at a time")
    common.as_json(parser, "outcome of every row")


def run(options: argparse.Namespace) -> None:
    """Fetches what is missing; InputError or TransferError when a row failed."""
    from data_pipelines import human_reference
    from data_pipelines.assemblies import fetch
    from data_pipelines.manifest import read_manifest
    from data_pipelines.mirrors import mirrors

    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: at least 1")
    if options.manifest == human_reference.NAME:
        manifest = human_reference.MANIFEST
    else:
        manifest = read_manifest(options.manifest)
    common.end_on_sigterm()
    with _bars(len(manifest.assemblies)) as tell:
        outcomes = fetch(
            manifest, options.out, mirrors=mirrors(), workers=options.workers, tell=tell
        )
    print(_json(outcomes) if options.json else _summary(outcomes))
    _raise_failed(outcomes)


@contextlib.contextmanager
def _bars(rows: int) -> Iterator[Callable[[str, str, int, int | None], None]]:
    """One bar a file at work and one for all of them, on a terminal."""
    from rich import progress
    from rich.console import Console
    from rich.filesize import decimal

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[text]}"),
    )
    with progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        every = bars.add_task("all", total=rows, text=f"0 of {rows:,} files")
        tasks: dict[str, progress.TaskID] = {}
        sizes: dict[str, int] = {}
        finished: set[str] = set()

        def tell(accession: str, text: str, there: int, total: int | None) -> None:
            sizes[accession] = there
            if text in ("fetching", "checking"):
                if accession not in tasks:
                    tasks[accession] = bars.add_task(accession, total=total, text=text)
                size = decimal(there) if total is None else f"{decimal(there)} of {decimal(total)}"
                bars.update(tasks[accession], completed=there, total=total, text=f"{text} {size}")
            else:
                finished.add(accession)
                if accession in tasks:
                    bars.remove_task(tasks.pop(accession))
            there_in_all = decimal(sum(list(sizes.values())))
            bars.update(
                every,
                completed=len(finished),
                text=f"{len(finished):,} of {rows:,} files, {there_in_all}",
            )

        yield tell


def _summary(outcomes: "list[Outcome]") -> str:
    """Files and bytes by group, how they came, what was checked; then what was not as it should."""
    from data_pipelines.manifest import group_order
    from nt_jax.evaluation.table import aligned

    groups = sorted({o.assembly.group for o in outcomes}, key=group_order)
    kinds = ("downloaded", "linked", "there", "failed")
    rows = []
    for name in [*groups, "all"]:
        own = [o for o in outcomes if name in (o.assembly.group, "all")]
        hows = collections.Counter(o.how for o in own)
        checks = collections.Counter(o.checked for o in own if o.error is None)
        rows.append(
            [
                name,
                f"{len(own):,}",
                f"{sum(o.bytes for o in own):,}",
                *(f"{hows[kind]:,}" for kind in kinds),
                ", ".join(f"{by} {count:,}" for by, count in sorted(checks.items())) or "–",
            ]
        )
    lines = [aligned(["group", "files", "bytes", *kinds, "checked by"], rows)]
    lines += [f"passed over: {text}" for o in outcomes for text in o.passed_over]
    lines += [f"failed: {o.error}" for o in outcomes if o.error]
    return "\n".join(lines)


def _json(outcomes: "list[Outcome]") -> str:
    return json.dumps(
        [
            {
                "accession": o.assembly.accession,
                "path": str(o.path),
                "how": o.how,
                "origin": o.origin,
                "checked": o.checked,
                "bytes": o.bytes,
                "passed_over": list(o.passed_over),
                "error": str(o.error) if o.error else None,
            }
            for o in outcomes
        ],
        indent=2,
    )


def _raise_failed(outcomes: "list[Outcome]") -> None:
    """One line for all rows that failed: bad input where one is, else a transfer."""
    failed = [o.error for o in outcomes if o.error]
    if not failed:
        return
    worst = next((error for error in failed if isinstance(error, InputError)), failed[0])
    if len(failed) == 1:
        raise worst
    raise type(worst)(f"{len(failed)} of {len(outcomes)} files are not there; first: {worst}")
