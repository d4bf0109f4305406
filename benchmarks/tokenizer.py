"""Tokenizer speed: `nt_jax.tokenizers` beside a plain Python 6-mer tokenizer, on one core.

    python benchmarks/tokenizer.py [--rounds 40]

Both tokenize the same seeded random windows to token ids, `<cls>` in front, and their ids are
compared before anything is timed. Rounds are interleaved (each round times every cell once, in a
new order), so a busy moment of the machine hits all of them. Writes benchmarks/results/
tokenizer.json (all samples) and tokenizer.md. Expected: at least 10 times the plain tokenizer on
windows without N, its input being bytes as they lie in the dataset.
"""

import argparse
import functools
import json
import pathlib
import platform
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nt_jax.tokenizers import KmerTokenizer

K = 6
SEED = 0
SECONDS_PER_SAMPLE = 0.02
RESULTS = pathlib.Path(__file__).parent / "results"
WINDOWS = {
    "hf6200 crop, 1000 tokens": (5_994, 0.0),
    "paper6100, 6,100 bases": (6_100, 0.0),
    "12 kb, 2048 tokens": (12_282, 0.0),
    "6,100 bases, one run of 50 N": (6_100, 50 / 6_100),
    "6,100 bases, 10% scattered N": (6_100, -0.1),
}
"""Name -> bases and share of N; a negative share is scattered, a positive one is a single run."""


def plain_vocabulary(tokenizer: KmerTokenizer) -> dict[str, int]:
    """Text of a token -> id."""
    return {text: i for i, text in enumerate(tokenizer.tokens)}


def plain_encode(sequence: str, vocabulary: dict[str, int]) -> list[int]:
    """What one writes first: split at N, step through each run six letters at a time."""
    ids = [vocabulary["<cls>"]]
    for number, run in enumerate(sequence.split("N")):
        if number:
            ids.append(vocabulary["N"])
        end = len(run) - len(run) % K
        ids.extend([vocabulary[run[i : i + K]] for i in range(0, end, K)])
        ids.extend([vocabulary[letter] for letter in run[end:]])
    return ids


def random_window(bases: int, n_share: float, generator: np.random.Generator) -> bytes:
    """Uniform A, C, G, T of the given length, with Ns as in WINDOWS."""
    window = np.frombuffer(b"ACGT", np.uint8)[generator.integers(0, 4, bases)].copy()
    if n_share < 0:
        window[generator.random(bases) < -n_share] = ord("N")
    else:
        run = round(n_share * bases)
        start = generator.integers(0, bases - run)
        window[start : start + run] = ord("N")
    return window.tobytes()


def seconds_of(call: Callable[[], object], repeats: int) -> float:
    """Mean processor seconds of one call: a core shared with other programs counts its own work."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def measure(rounds: int) -> list[dict[str, Any]]:
    """One row a window kind and tokenizer with the Mbases/s of every round."""
    tokenizer = KmerTokenizer(K, "v2")
    vocabulary = plain_vocabulary(tokenizer)
    generator = np.random.default_rng(SEED)
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Callable[[], object], int, int, list[float]]] = []
    for name, (bases, n_share) in WINDOWS.items():
        raw = random_window(bases, n_share, generator)
        text, array = raw.decode(), np.frombuffer(raw, np.uint8)
        if tokenizer.encode(raw).tolist() != plain_encode(text, vocabulary):
            raise AssertionError(f"{name}: the tokenizers disagree")
        calls: dict[str, Callable[[], object]] = {
            "plain Python (str)": functools.partial(plain_encode, text, vocabulary),
            "nt_jax (bytes)": functools.partial(tokenizer.encode, raw),
            "nt_jax (str)": functools.partial(tokenizer.encode, text),
            "nt_jax (uint8 array)": functools.partial(tokenizer.encode, array),
        }
        for label, call in calls.items():
            samples: list[float] = []
            rows.append({"window": name, "bases": bases, "tokenizer": label, "samples": samples})
            repeats = max(1, round(SECONDS_PER_SAMPLE / seconds_of(call, 20)))
            cells.append((call, repeats, bases, samples))
    order = list(range(len(cells)))
    for done in range(rounds):
        random.Random(SEED + done).shuffle(order)
        for cell in order:
            call, repeats, bases, samples = cells[cell]
            samples.append(bases / seconds_of(call, repeats) / 1e6)
        print(f"\rround {done + 1}/{rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for row in rows:
        low, median, high = np.percentile(row["samples"], [25, 50, 75])
        row |= {"median": median, "quartiles": [low, high]}
    return rows


def cpu_name() -> str:
    """The processor as the system names it."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: list[dict[str, Any]], about: dict[str, object]) -> str:
    """Markdown with medians, quartiles and the ratio to the plain tokenizer of the same window."""
    plain = {row["window"]: row for row in rows if row["tokenizer"].startswith("plain")}
    clean = [name for name, (_, n_share) in WINDOWS.items() if n_share == 0]
    ratios = {
        row["window"]: row["median"] / plain[row["window"]]["median"]
        for row in rows
        if row["tokenizer"] == "nt_jax (bytes)"
    }
    lines = [
        "# Tokenizer",
        "",
        f"6-mers (v2), windows without N: **{min(ratios[n] for n in clean):.1f} to "
        f"{max(ratios[n] for n in clean):.1f} times** a plain Python tokenizer "
        "(medians, bytes as stored in the dataset).",
        "",
        f"One core of {about['cpu']}, Python {about['python']}, NumPy {about['numpy']}; "
        f"{about['rounds']} interleaved rounds, seeded random windows. "
        "Mbases per processor second: median (quartiles).",
        "",
        "| window | tokenizer | Mbases/s | ratio |",
        "|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["quartiles"]
        ratio = row["median"] / plain[row["window"]]["median"]
        lines.append(
            f"| {row['window']} | {row['tokenizer']} | "
            f"{row['median']:.0f} ({low:.0f}-{high:.0f}) | {ratio:.1f} |"
        )
    return "\n".join([*lines, "", "Command: `python benchmarks/tokenizer.py`", ""])


def main() -> None:
    """Measures and writes both result files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="samples of each cell (default 40)")
    rounds = parser.parse_args().rounds
    rows = measure(rounds)
    about: dict[str, object] = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rounds": rounds,
        "k": K,
        "seed": SEED,
        "unit": "Mbases per processor second",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tokenizer.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    (RESULTS / "tokenizer.md").write_text(table(rows, about))
    print(table(rows, about))


if __name__ == "__main__":
    main()
