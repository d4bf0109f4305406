"""Builds a dataset of every genome at hand: one worker, two, Apache Beam; killed; without room.

    python benchmarks/build.py [--scratch DIR]

1. The same manifest, built by `nt-jax data build manifest` with one and with two workers and by
   Beam's DirectRunner with two processes: every file has to be the same. Speed is bases by
   processor time, that of all processes together, less what the same command takes for one phage:
   start-up is seconds a process, and the genomes of a real build take hours.
2. Killed with SIGKILL at random moments (with one, two workers and Beam in turn), then finished by
   the same command.
3. On a tmpfs that is too small, then made larger: refused with one line, finished by the same
   command. Needs the right to mount one.

Reads ../shared/data (or NT_JAX_DATA_MIRROR); writes benchmarks/results/build.json and build.md.
About ten minutes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from data_pipelines.manifest import Assembly, write_manifest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEAM = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
WAYS = {
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
    "Beam, 2 processes": ("--beam", BEAM),
}
KILLS = 6
SMALL, LARGE = "60m", "900m"


def main() -> None:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for the datasets")
    options = parser.parse_args()
    mirror = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = pathlib.Path(name)
        genomes = sorted((mirror / "genomes").rglob("*.fa.gz"))
        manifest = folder / "genomes.tsv"
        write_manifest(manifest, [row(path) for path in genomes])
        tiny = folder / "phage.tsv"
        write_manifest(tiny, [row(path) for path in genomes if "lambda" in path.name])
        result: dict[str, Any] = {"sources": len(genomes), "ways": {}}
        files: dict[str, dict[str, str]] = {}
        for way in WAYS:
            out = folder / way.replace(" ", "-").replace(",", "")
            start_up, _ = timed(command(tiny, out.with_suffix(".tiny"), way))
            used, wall = timed(command(manifest, out, way))
            files[way] = digests(out)
            card = json.loads((out / "datacard.json").read_text())
            result["bases"] = sum(source["bases"] for source in card["sources"])
            result["windows"] = card["splits"]
            result["unaccounted"] = result["bases"] - sum(
                source["bases_in_windows"] + sum(source["dropped_bases"].values())
                for source in card["sources"]
            )
            result["ways"][way] = {
                "seconds": wall,
                "processor_seconds": used,
                "start_up": start_up,
                "million_bases_a_processor_second": result["bases"] / (used - start_up) / 1e6,
            }
        whole = files["1 worker"]
        result["files"] = len(whole)
        result["same"] = all(own == whole for own in files.values())
        result["killed"] = killed(manifest, folder / "killed", result["ways"])
        result["same_after_kills"] = digests(folder / "killed") == whole
        with small_disk(folder / "disk") as disk:
            result["full_disk"] = full(manifest, disk)
            result["same_after_full_disk"] = digests(disk / "out") == whole
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "build.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "build.md").write_text(table(result))
    print(table(result))


def row(path: pathlib.Path) -> Assembly:
    """A local file as an assembly; the species is what its name begins with."""
    name = path.name.removesuffix(".fa.gz")
    content = path.read_bytes()
    return Assembly(
        accession=name,
        species=" ".join(name.split("_")[:2]),
        genus=name.split("_")[0],
        group=path.parent.name,
        url=str(path.resolve()),
        checksum=f"md5:{hashlib.md5(content).hexdigest()}",
        bytes=len(content),
        split="",
        weight=1.0,
    )


def command(manifest: pathlib.Path, out: pathlib.Path, way: str) -> list[str]:
    """What a user would type."""
    words = ["data", "build", "manifest", "--manifest", manifest, "--out", out, *WAYS[way]]
    return [sys.executable, "-m", "nt_jax.cli", *map(str, words)]


def timed(words: list[str]) -> tuple[float, float]:
    """(processor seconds of all its processes, seconds) of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


def digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def killed(manifest: pathlib.Path, out: pathlib.Path, ways: dict[str, Any]) -> list[str]:
    """Kills builds of one folder at random moments, then finishes it; how each was met."""
    draw = random.Random(0)
    met = []
    for number in range(KILLS):
        way = list(WAYS)[number % len(WAYS)]
        process = subprocess.Popen(
            command(manifest, out, way),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(draw.uniform(0.2, 0.6) * ways[way]["seconds"])
        process.kill()
        if process.wait() == 0:
            break
        staging = out.with_name(f"{out.name}.incomplete")
        there = len(list(staging.glob("genome_windows-*"))), len(list(staging.glob("contigs-*")))
        met.append(f"{way}: {there[1]} sources and {there[0]} shards were there")
        if out.exists():
            raise SystemExit(f"{out}: looks finished after a kill")
    if len(met) < 2:
        raise SystemExit("it was finished before it could be killed")
    subprocess.run(command(manifest, out, "2 workers"), check=True, capture_output=True)
    return met


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full(manifest: pathlib.Path, disk: pathlib.Path) -> list[str]:
    """Builds on a disk that is made larger step by step; what each refusal said."""
    said = []
    for size in (SMALL, "100m", "140m", LARGE):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        done = subprocess.run(
            command(manifest, disk / "out", "2 workers"), capture_output=True, text=True
        )
        if done.returncode == 0:
            return said
        lines = done.stderr.splitlines()
        if len(lines) != 1 or (disk / "out").exists():
            raise SystemExit(f"not one line, or looks finished: {lines}")
        said.append(f"{size}: {lines[0].replace(str(disk), 'DISK')}")
    raise SystemExit(f"{LARGE} are too small: {said}")


def table(result: dict[str, Any]) -> str:
    """What people read."""
    rows = "\n".join(
        f"| {way} | {own['seconds']:.1f} | {own['processor_seconds']:.1f} | "
        f"{own['start_up']:.1f} | {own['million_bases_a_processor_second']:.1f} |"
        for way, own in result["ways"].items()
    )
    kills = "\n".join(f"- {line}" for line in result["killed"])
    refusals = "\n".join(f"- {line}" for line in result["full_disk"])
    yes = {True: "the same bytes", False: "OTHER BYTES"}
    return f"""# Building a dataset of {result["sources"]} genomes

{result["bases"]:,} bases, {sum(result["windows"].values()):,} windows, {result["files"]} files;
{result["unaccounted"]} bases neither in a window nor counted as dropped.

| | seconds | processor seconds | of these start-up | million bases a processor second |
|---|---:|---:|---:|---:|
{rows}

All ways: {yes[result["same"]]}. Processor seconds are those of all processes; start-up is what the
same command takes for one phage, and the speed is without it.

Killed with SIGKILL, then finished: {yes[result["same_after_kills"]]}.

{kills}

On a disk without room, which then got more of it: {yes[result["same_after_full_disk"]]}.

{refusals}
"""


if __name__ == "__main__":
    main()
