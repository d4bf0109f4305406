"""What each defect of the published reference code changes: the numbers of docs/interchange.md.

    python benchmarks/compatibility.py [heads|rotary|letters|readers ...]

Prints one Markdown table a defect. Reads the tiny published checkpoint and the genomes of
`../shared` (or NT_JAX_DATA_MIRROR for the genomes). Expected: the switches of the reference change
attention maps, bfloat16 logits and what can be tokenized; of the two readers ours is the lighter.
"""

import argparse
import dataclasses
import gzip
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from nt_jax.config import Experiment
from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.interchange.nt import read_nt, write_nt
from nt_jax.interchange.weights import Weights, expected_tensors, to_params
from nt_jax.model.presets import preset
from nt_jax.model.rotary import rotary_tables, rounded_rotary_tables

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared"
DATA = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", SHARED / "data"))
CHECKPOINT = SHARED / "fixtures" / "v2_tiny"
TOKENS = 2000
EDGES = (0, 64, 256, 512, 1000, TOKENS)
WINDOW = 6000
"""Bases of a window of the published recipe `hf6200`, without its overlap."""
ROUNDS = 5


def tiny(**changes: object) -> LoadedModel:
    """The tiny published v2 checkpoint (random weights, 3 layers, 4 heads), its config changed."""
    weights = read_nt(CHECKPOINT)
    model = dataclasses.replace(weights.model, max_positions=TOKENS, **changes)
    experiment = Experiment(name="v2_tiny", model=model, tokenizer=weights.tokenizer)
    return from_params(to_params(weights), 0, experiment)


def random_tokens(model: LoadedModel, rows: int, length: int) -> np.ndarray:
    """int32[rows, length] of uniform k-mers behind `<cls>`."""
    tokens = np.random.default_rng(0).integers(*model.tokenizer.kmer_ids, (rows, length))
    tokens[:, 0] = model.tokenizer.cls_id
    return tokens.astype(np.int32)


def heads() -> Iterator[tuple[object, ...]]:
    """Which head stands under a number, and how far its maps are from the asked one's."""
    yield "asked (layer 1)", "given", "largest difference", "attention elsewhere"
    model = tiny()
    tokens = random_tokens(model, 8, 64)
    true = np.asarray(model.apply(tokens, (1,), attention=True)["attention"][1])
    given = model.apply(tokens, (1,), attention=True, heads="reference")["attention"][1]
    for number in range(true.shape[1]):
        found = np.asarray(given[:, number])
        same = [head for head in range(true.shape[1]) if np.array_equal(found, true[:, head])]
        difference = np.abs(found - true[:, number])
        elsewhere = difference.sum(axis=-1).mean() / 2
        yield f"head {number}", f"head {same[0]}", f"{difference.max():.2f}", f"{elsewhere:.0%}"


def rotary() -> Iterator[tuple[object, ...]]:
    """Largest error of bfloat16 cosines, and RMS error of bfloat16 logits over their deviation."""
    yield (
        "positions", "cosine, K = 32", "cosine, K = 64", "2,000 tokens, float32 angles", "rounded",
        "input ends there, float32 angles", "rounded",
    )  # fmt: skip
    cosines = []
    for size in (32, 64):
        exact = rotary_tables(TOKENS, size, 1e4)[0]
        rounded = rounded_rotary_tables(TOKENS, size, 1e4, 1.0, jnp.bfloat16)[0]
        cosines.append(np.abs(np.float32(rounded) - exact).max(axis=1))
    model = tiny()
    halves = [tiny(compute_dtype="bfloat16", rotary_angles=x) for x in ("float32", "compute_dtype")]
    tokens = random_tokens(model, 4, TOKENS)

    def errors(length: int, first: int) -> list[str]:
        exact, *found = (
            np.asarray(one.apply(tokens[:, :length])["logits"])[:, first:end]
            for one in (model, *halves)
        )
        return [f"{np.sqrt(np.square(x - exact).mean()) / exact.std():.1%}" for x in found]

    for first, end in itertools.pairwise(EDGES):
        largest = [f"{cosine[first:end].max():.2f}" for cosine in cosines]
        yield f"{first}-{end - 1}", *largest, *errors(TOKENS, first), *errors(end, 0)


def letters() -> Iterator[tuple[object, ...]]:
    """What the published tokenizer cannot encode in real genomes."""
    yield (
        "genomes", "files, with lower case", "bases", "lower case", "in files that have it",
        "other IUPAC", "windows refused",
    )  # fmt: skip
    plain, lower, iupac = (
        np.isin(np.arange(256), list(text))
        for text in (b"ACGTN", b"acgtn", b"URYSWKMBDHVuryswkmbdhv")
    )
    for group in ("human", "species"):
        paths = sorted((DATA / "genomes" / group).glob("*.fa.gz"))
        counts = np.zeros((len(paths), 5), np.int64)
        for row, path in enumerate(paths):
            for contig in contigs(path):
                refused = ~plain[contig]
                starts = np.arange(0, len(contig) - WINDOW + 1, WINDOW)
                windows = sum(refused[start : start + WINDOW].any() for start in starts)
                counts[row] += (
                    len(contig), lower[contig].sum(), iupac[contig].sum(), windows, len(starts)
                )  # fmt: skip
        masked = counts[counts[:, 1] > 0]
        bases, small, other, windows, total = counts.sum(axis=0).tolist()
        yield (
            group, f"{len(paths)}, {len(masked)}", f"{bases:,}", f"{small:,} ({small / bases:.1%})",
            f"{small / masked[:, 0].sum():.1%}", other,
            f"{windows:,} of {total:,} ({windows / total:.1%})",
        )  # fmt: skip


def contigs(path: pathlib.Path) -> Iterator[np.ndarray]:
    """uint8[bases] of every record, as it is written in the file."""
    for record in gzip.decompress(path.read_bytes()).split(b">")[1:]:
        yield np.frombuffer(b"".join(record.split(b"\n")[1:]), np.uint8)


# Reads all parameters in a process of its own and prints seconds and the peak of its memory.
_READ = r"""
import pathlib, re, sys, time
import jax, joblib
from nt_jax.interchange import unpickled
from nt_jax.interchange.nt import read_nt
from nt_jax.interchange.joblib_file import read_tree
from nt_jax.interchange.weights import expected_tensors, to_params
from nt_jax.model.presets import preset

def peak():
    # `ru_maxrss` would start at what the parent process had.
    return int(re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
folder, reader = pathlib.Path(sys.argv[1]), sys.argv[2]
expected_tensors(*preset("nt_v2_50m_multispecies"))
before, start = peak(), time.process_time()
weights = read_nt(folder, unpickled.unpickle_tree if reader == "joblib.load" else read_tree)
to_params(weights)
print(time.process_time() - start, (peak() - before) / 1024)
"""


def readers() -> Iterator[tuple[object, ...]]:
    """Time and memory of both readers of a joblib file, with the shapes of v2 50M."""
    model, tokenizer = preset("nt_v2_50m_multispecies")
    shapes = expected_tensors(model, tokenizer)
    generator = np.random.default_rng(0)
    weights = Weights(
        model, tokenizer, shapes,
        lambda name: generator.standard_normal(shapes[name], np.float32), "random",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_nt(weights, None, folder)
        size = (folder / "pytree_ckpt.joblib").stat().st_size
        yield f"reader ({size / 1e6:.0f} MB)", "processor time to parameters", "memory at the peak"
        samples: dict[str, list[list[float]]] = {"nt-jax": [], "joblib.load": []}
        for _ in range(ROUNDS):
            for reader, found in samples.items():
                command = [sys.executable, "-c", _READ, name, reader]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append([float(word) for word in done.stdout.split()])
    for reader, found in samples.items():
        seconds, memory = (statistics.median(values) for values in zip(*found, strict=True))
        yield reader, f"{seconds:.2f} s", f"{memory:.0f} MiB"


PARTS = {"heads": heads, "rotary": rotary, "letters": letters, "readers": readers}


def main() -> None:
    """Prints the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    for part in parser.parse_args().part:
        title, *rows = PARTS[part]()
        print(f"\n{part}\n")
        for row in (title, ["---"] * len(title), *rows):
            print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
