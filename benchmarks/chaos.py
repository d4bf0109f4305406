"""Seeded disasters: every run must end with the uninterrupted run's curve, or refuse for a reason.

    python benchmarks/chaos.py --runs 30 --out docs/results/chaos [--work DIR] [--processes N]

A run is a tiny experiment (tests/nt_jax/runs.py) whose process is killed, stopped, preempted, or
made to hang, whose newest checkpoint is damaged between two lives, or whose disk is full for a
while. Each disaster is drawn from the run's seed. At the end all rows of metrics.jsonl but their
timings, and all bits of the parameters, are compared with a run of the same config that nothing
disturbed. Some configs meet non-finite batches (an N in the data, whose embedding is infinite),
spikes, or roll back.

Finished runs are kept in --work and not repeated. Writes OUT.md and OUT.json; exits with 1 when
a run failed. About a minute of two cores a run. With --processes N every life is N processes that
jax.distributed joins, and a disaster strikes one of them or all. A full disk needs root (tmpfs).
"""

import argparse
import contextlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()

from disasters import DAMAGE, KINDS, SIGNALS, Event, Life, damage, row_count, strike, wait_for  # noqa: E402

from nt_jax.checkpoint import restore_params  # noqa: E402
from tests.nt_jax.runs import make_dataset, make_experiment, make_poisoned, rows  # noqa: E402

DISK = 24 << 20
"""Bytes of the disk that gets full."""
HANG = 4
"""Seconds that the watchdog waits where a run is made to hang."""
STEPS = ("--train.steps", 360, "--train.eval-every", 90, "--checkpoint.keep", 3)
POISON = ("--init-from", "poisoned")
CONFIGS: dict[str, tuple[object, ...]] = {
    "plain": STEPS,
    "non-finite batches": (*STEPS, *POISON),
    "spikes": (*STEPS, "--optim.spike-factor", 1.15, "--optim.spike-window", 10),
    "rollback": (*STEPS, *POISON, "--optim.nonfinite-limit", 1, "--optim.on-limit", "rollback",
                 "--optim.rollback-limit", 100),
}  # fmt: skip


def draw(seed: int, disk: bool) -> tuple[str, list[Event]]:
    """The config of a run and its disasters."""
    rng = random.Random(seed)
    config = list(CONFIGS)[seed % len(CONFIGS)]
    kinds = [kind for kind in KINDS if disk or kind != "full disk"]
    events = []
    for _ in range(rng.randint(2, 3)):
        when = rng.choice(("seconds", "far", "far", "saving"))
        kind = rng.choice(kinds)
        if kind not in SIGNALS:
            when = "far"
        amount = rng.uniform(0.5, 12.0) if when == "seconds" else rng.uniform(0.05, 0.6)
        damage = rng.choice(DAMAGE) if rng.random() < 0.4 else ""
        events.append(Event(kind, when, amount, rng.uniform(0.3, 3.0), damage, rng.random() < 0.5))
    return config, events


# --- A run ----------------------------------------------------------------------------------------


def prepare(base: pathlib.Path) -> None:
    """Data, experiment and poisoned weights, once."""
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "poisoned").exists():
        shutil.rmtree(base / "data", ignore_errors=True)
        make_dataset(base, n_every=3000)
        make_experiment(base)
        make_poisoned(base)


def arguments(base: pathlib.Path, workdir: pathlib.Path, config: str) -> list[object]:
    """The command that starts the run and lets it go on."""
    more = [base / "poisoned" if word == "poisoned" else word for word in CONFIGS[config]]
    return ["pretrain", base / "tiny.py", "--data", base / "data", "--workdir", workdir, *more]


def reference(base: pathlib.Path, config: str, processes: int) -> pathlib.Path:
    """A run of the config that nothing disturbs."""
    folder = base / f"reference-{config.replace(' ', '-')}-{processes}"
    if not (folder / "run" / "DONE").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        life = Life(arguments(base, folder / "run", config), folder, processes)
        if life.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed: {life.said()}")
    return folder / "run"


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[None]:
    """A disk of its own for a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount(folder: pathlib.Path) -> bool:
    """Whether a small disk can be had here."""
    try:
        with small_disk(folder / "probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        with contextlib.suppress(OSError):
            (folder / "probe").rmdir()


def play(base: pathlib.Path, seed: int, disk: bool, processes: int = 1) -> dict[str, Any]:
    """Runs one seed to its end; the outcome is `same`, `refused`, or begins with FAILED."""
    config, events = draw(seed, disk)
    expected = reference(base, config, processes)
    folder = base / f"seed-{seed}-{processes}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    workdir, rng, began = folder / "run", random.Random(-1 - seed), time.monotonic()
    with contextlib.ExitStack() as stack:
        if any(event.kind == "full disk" for event in events):
            stack.enter_context(small_disk(workdir))
        story, outcome = _lives(base, folder, config, events, processes, rng, row_count(expected))
        if outcome == "same":
            outcome = compare(workdir, expected)
    if outcome in ("same", "refused"):  # the folder of a failed one is looked at
        shutil.rmtree(folder)
    return {
        "seed": seed, "config": config, "processes": processes, "story": story,
        "lives": sum(entry.startswith("life") for entry in story), "outcome": outcome,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def _lives(
    base: pathlib.Path,
    folder: pathlib.Path,
    config: str,
    events: list[Event],
    processes: int,
    rng: random.Random,
    total: int,
) -> tuple[list[str], str]:
    """Starts the run again and again; returns what happened and how it ended."""
    workdir, story, queue = folder / "run", [], list(events)
    undamaged = True
    for _ in range(len(events) + 4):
        event = queue.pop(0) if queue else None
        asked = arguments(base, workdir, config)
        if event and event.kind == "hang":
            asked += ["--data.workers", 1, "--train.watchdog-seconds", HANG]
        life = Life(asked, folder, processes)
        what = "undisturbed"
        if event and wait_for(life, event, workdir, total):
            strike(life, event, workdir, rng)
            what = f"{event.kind} at row {row_count(workdir)}" + (" of all" if event.of_all else "")
        code = life.wait()
        story.append(f"life: {what}, exit {code}")
        if code == 0 and (workdir / "DONE").exists():
            return story, "same"
        text = life.said()
        if code == 2:
            # The only state there was has been damaged: nothing may be made up in its place.
            right = not undamaged and "checkpoints are damaged; restore the folder" in text
            return story, "refused" if right else f"FAILED: refused: {text[-400:]}"
        # Reads that TensorStore has under way when Orbax gives a damaged file up say the latter.
        tracebacks = text.count("Traceback") - text.count("RuntimeError: Event loop is closed")
        if tracebacks and "hang-" not in text:
            return story, f"FAILED: a traceback: {text[-400:]}"
        if event and event.damage:
            done = damage(workdir, event.damage, rng)
            undamaged = undamaged and not done
            story += [done] if done else []
    return story, f"FAILED: no end: {life.said()[-400:]}"


def compare(workdir: pathlib.Path, expected: pathlib.Path) -> str:
    """`same` when rows and parameters are those of the undisturbed run, bit by bit."""
    import jax
    import numpy as np

    found, wanted = rows(workdir), rows(expected)
    if found != wanted:
        different = [a for a, b in zip(found, wanted, strict=False) if a != b]
        return f"FAILED: {len(found)} rows of {len(wanted)}, first difference {different[:1]}"
    pairs = zip(
        *(jax.tree.leaves(restore_params(path)[0]) for path in (workdir, expected)), strict=True
    )
    if not all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs):
        return "FAILED: other parameters"
    return "same"


# --- Results --------------------------------------------------------------------------------------


def markdown(results: list[dict[str, Any]]) -> str:
    """The table of all runs."""
    outcomes = [result["outcome"] for result in results]
    lines = [
        "# Chaos",
        "",
        f"{len(results)} seeded runs (`python benchmarks/chaos.py`), "
        f"{sum(result['lives'] for result in results)} lives: {outcomes.count('same')} ended with "
        "the undisturbed run's rows and parameters, bit by bit; "
        f"{outcomes.count('refused')} refused to go on because every checkpoint had been damaged; "
        f"{sum(outcome.startswith('FAILED') for outcome in outcomes)} failed.",
        "",
        "| seed | config | processes | what happened | outcome |",
        "|---:|---|---:|---|---|",
    ]
    for result in results:
        story = "; ".join(result["story"]).replace("life: ", "").replace("|", "/")
        outcome = result["outcome"].replace("\n", " ").replace("|", "/")[:160]
        lines.append(
            f"| {result['seed']} | {result['config']} | {result['processes']} | {story} "
            f"| {outcome} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the seeds that are not done yet and writes the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="seeds from --first on")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=1, help="of each life")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/nt-jax-chaos"))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results" / "chaos")
    options = parser.parse_args()
    base = options.work.absolute()
    prepare(base)
    disk = can_mount(base)
    if not disk:
        print("no small disk can be mounted here (root?): no disk gets full", file=sys.stderr)
    state = base / "results.jsonl"
    results = (
        [json.loads(line) for line in state.read_text().splitlines()] if (state.exists()) else []
    )
    done = {(result["seed"], result["processes"]) for result in results}
    for seed in range(options.first, options.first + options.runs):
        if (seed, options.processes) in done:
            continue
        result = play(base, seed, disk, options.processes)
        results.append(result)
        with state.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"seed {seed}: {result['outcome']} in {result['seconds']} s; {result['config']}; "
              f"{'; '.join(result['story'])}", file=sys.stderr, flush=True)  # fmt: skip
    results.sort(key=lambda result: (result["processes"], result["seed"]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(results))
    return int(any(result["outcome"].startswith("FAILED") for result in results))


if __name__ == "__main__":
    sys.exit(main())
