"""Damages real FASTA and VCF files 200,000 times: a clear error, or nothing lost.

    python benchmarks/fuzz.py --data ../shared/data --mutations 200000 --seed 0 [--resume]

Excerpts of real files (plain, gzip, BGZF, BCF) are damaged and given to the code that builds use.
Either it refuses with an InputError, one line that names the file, or what it read is compared with
naive parsers that share nothing with it: every base, every window, every count, every haplotype.
Mutants run in processes of their own: one that dies or hangs is a failure and the run goes on.

Finished mutants are kept in --state: with --resume a run that was stopped goes on, and those that
failed run again. Writes benchmarks/results/fuzz.md; exits with 1 when anything failed. About 5 ms
of one core a mutant.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from fuzzing import genomes, panels
from fuzzing.mutants import generator, mutant
from fuzzing.seeds import Seed, seeds
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CHUNK = 500
"""Mutants that a process is given at a time."""
HANG = 60.0
"""Seconds after which a mutant counts as hanging."""
START = 120.0
"""Seconds more for the first mutant of a process, which imports everything."""
MEMORY = 16 << 30
"""Bytes of address space of a process: what asks for more fails."""
OUTCOMES = ("accepted", "refused", "failed")
CHECKS = {"fasta": genomes.check, "vcf": panels.check}


def one(
    excerpts: tuple[list[Seed], list[Seed]], seed: int, number: int, folder: pathlib.Path
) -> dict[str, Any]:
    """What became of one mutant: {"number", "family", "kind", "outcome", "unharmed", "error"}."""
    rng = generator(seed, number)
    made = mutant(excerpts, rng, number)
    row = {"number": number, "family": made.family, "kind": made.kind, "error": ""}
    row["unharmed"] = made.unharmed
    try:
        row["outcome"] = CHECKS[made.family](made, rng, folder)
    except Exception as error:
        row["outcome"] = "failed"
        row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


def worker(data: pathlib.Path, seed: int, pipe: Connection, current: Any) -> None:
    """Runs the ranges that come through the pipe, and says before each mutant which it is."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # htslib tells every mutant's story
    excerpts = seeds(data)
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        while (chunk := pipe.recv()) is not None:
            for number in range(*chunk):
                current.value = number
                pipe.send(one(excerpts, seed, number, pathlib.Path(folder)))


class Process:
    """A worker and what it is doing."""

    def __init__(self, data: pathlib.Path, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.current = context.Value("q", -1, lock=False)
        self.process = context.Process(
            target=worker, args=(data, seed, theirs, self.current), daemon=True
        )
        self.process.start()
        theirs.close()
        self.left: range = range(0)
        self.heard = time.monotonic() + START

    def give(self, numbers: range) -> None:
        """Consecutive mutants."""
        self.left, self.heard = numbers, max(self.heard, time.monotonic())
        self.pipe.send((numbers.start, numbers.stop))

    def read(self) -> dict[str, Any] | None:
        """The next result; None where the process has died."""
        try:
            row = self.pipe.recv()
        except (EOFError, ConnectionError):
            return None
        self.left, self.heard = self.left[1:], time.monotonic()
        return row

    def stop(self) -> str:
        """Ends the process; how it ended before that."""
        self.process.join(0.2)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        return "hangs" if code is None else f"process ended with {code}"


def run(data: pathlib.Path, seed: int, todo: list[range], workers: int) -> Iterator[dict[str, Any]]:
    """A row for every mutant, in any order."""
    todo = todo[::-1]
    processes = [Process(data, seed) for _ in range(min(workers, len(todo)))]
    try:
        for own in processes:
            own.give(todo.pop())
        while processes:
            ready = wait([own.pipe for own in processes], timeout=1.0)
            for i, own in enumerate(processes):
                row: dict[str, Any] | None = None
                late = time.monotonic() - own.heard > HANG
                if own.pipe in ready:
                    row = own.read()
                elif not late:
                    continue
                if row is not None:
                    yield row
                else:
                    first = own.left[0]
                    yield {"number": first, **_described(data, seed, first), "error": own.stop()}
                    todo.append(own.left[1:])
                    own = processes[i] = Process(data, seed)
                    own.left = range(0)
                if not own.left:
                    todo = [part for part in todo if part]
                    if todo:
                        own.give(todo.pop())
                    else:
                        own.pipe.send(None)
                        own.process.join()
            processes = [own for own in processes if own.process.is_alive()]
    finally:
        for own in processes:
            own.stop()


def _described(data: pathlib.Path, seed: int, number: int) -> dict[str, Any]:
    made = mutant(seeds(data), generator(seed, number), number)
    return {"family": made.family, "kind": made.kind, "unharmed": False, "outcome": "failed"}


def chunks(missing: list[int]) -> list[range]:
    """Consecutive numbers, at most CHUNK at a time."""
    parts: list[range] = []
    for number in missing:
        if parts and parts[-1].stop == number and len(parts[-1]) < CHUNK:
            parts[-1] = range(parts[-1].start, number + 1)
        else:
            parts.append(range(number, number + 1))
    return parts


def finished(state: pathlib.Path, seed: int, mutations: int) -> dict[int, dict[str, Any]]:
    """Rows of an earlier run with this seed, but those that failed and a line that was cut off."""
    rows = {}
    for line in state.read_text().splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            wanted = row["seed"] == seed and row["number"] < mutations
            if wanted and row["outcome"] != "failed":
                rows[row["number"]] = row
    return rows


def main() -> int:
    """Runs the mutants and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--mutations", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--state", type=pathlib.Path, default=ROOT / "runs" / "fuzz.jsonl")
    parser.add_argument("--resume", action="store_true", help="go on; failures run again")
    options = parser.parse_args()
    options.state.parent.mkdir(parents=True, exist_ok=True)
    if options.state.exists() and not options.resume:
        options.state.unlink()
    rows: dict[int, dict[str, Any]] = {}
    if options.state.exists():
        rows = finished(options.state, options.seed, options.mutations)
    todo = chunks([n for n in range(options.mutations) if n not in rows])
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress("mutants", *columns, console=Console(stderr=True)) as progress,
        options.state.open("a") as stream,
    ):
        bar = progress.add_task("", total=options.mutations, completed=len(rows))
        stream.write("\n")
        for row in run(options.data, options.seed, todo, options.workers):
            rows[row["number"]] = row
            stream.write(json.dumps({"seed": options.seed, **row}) + "\n")
            progress.advance(bar)
            if row["error"]:
                stream.flush()
                progress.console.print(f"mutant {row['number']} ({row['kind']}): {row['error']}")
    RESULTS.mkdir(exist_ok=True)
    text = table(list(rows.values()), options.seed)
    (RESULTS / "fuzz.md").write_text(text)
    print(text)
    return int(any(row["outcome"] == "failed" for row in rows.values()))


def table(rows: list[dict[str, Any]], seed: int) -> str:
    """What people read."""
    counts = collections.Counter((row["family"], row["kind"], row["outcome"]) for row in rows)
    totals = collections.Counter(row["outcome"] for row in rows)
    unharmed = sum(row["unharmed"] for row in rows)
    lines = []
    for family, kind in sorted({(row["family"], row["kind"]) for row in rows}):
        own = [counts[family, kind, outcome] for outcome in OUTCOMES]
        name = {"fasta": "FASTA", "vcf": "VCF, BCF"}[family]
        lines.append(f"| {name} | {kind} | " + " | ".join(f"{n:,}" for n in own) + " |")
    body = "\n".join(lines)
    return f"""# Fuzzing of the readers

{len(rows):,} mutants of real files, seed {seed}: {totals["accepted"]:,} read with every base, count
and haplotype as the naive parsers have them, {totals["refused"]:,} refused with one clear line,
{totals["failed"]:,} failed (a crash, another exception, a loss, or a difference). In
{unharmed:,} of them the mutation had left the file as it was.

| file | mutation | read | refused | failed |
|---|---|---:|---:|---:|
{body}

Made by `python benchmarks/fuzz.py --mutations {len(rows)} --seed {seed}`. Plain, gzip, BGZF and BCF
files take turns; `compressed`, `blocks` and `members` damage the compressed file, `BCF` the records
inside of it, the others the text.
"""


if __name__ == "__main__":
    sys.exit(main())
