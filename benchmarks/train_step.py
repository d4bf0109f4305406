"""Speed of the train step beside PyTorch and a plain JAX step, side by side in one run.

    python benchmarks/train_step.py [CASE ...]          # CPU, float32, small shapes
    python benchmarks/train_step.py --gpu [CASE ...]    # one GPU, bfloat16, the published models
    python benchmarks/train_step.py --small             # the GPU run with tiny shapes, for a CPU

Contestants: this package exactly as `nt-jax pretrain` runs it; PyTorch (v1: transformers' own
EsmForMaskedLM, v2: the code that exports carry) with SDPA attention and fused AdamW; a plain jitted
Haiku step with dense attention and logits everywhere, built as the published JAX model is. Each is
a process of its own. They start from the same weights (but for the largest model), see the same
masked tokens, must have the same number of parameters, and their first losses must agree. Then
they take turns, round after round, and so do large matrix products in both frameworks: the peak
that utilisation is measured against, with the model FLOPs of nt_jax/throughput.py for all.

CASE[=BATCH] chooses cases and their sequences a step; other cases keep the rows they have. Writes
train_step.json and train_step.md (with --gpu train_step_gpu) to --out after each case. To expect
on two CPU cores: ours ahead of all in each case.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()
from peers import contest  # noqa: E402

contest.stay_off_devices()

from peers import train_tables  # noqa: E402
from peers.contest import (  # noqa: E402
    HUGE_PAGES,
    RESULTS,
    Clock,
    Contestant,
    Entry,
    FailedError,
    machine,
    spread,
    take_turns,
)
from peers.train_cases import (  # noqa: E402
    Case,
    chosen_cases,
    cpu_cases,
    gpu_cases,
    small_cases,
)

from nt_jax.files import write_atomically  # noqa: E402

FIRST_STEPS = 4
"""Whose losses must agree."""
TOLERANCE = {"float32": 2e-4, "bfloat16": 1e-2}
"""Of those losses, relative."""


OURS = Entry("nt-jax", "ours")
PLAIN = Entry("plain JAX", "plain_haiku")
TORCH = Entry("torch", "torch_esm")
COMPILED = Entry("torch.compile", "torch_esm", {"compiled": "model"}, instead=TORCH)
ON_CPU = (
    OURS,
    TORCH,
    Entry("torch, huge pages", "torch_esm", environment=HUGE_PAGES),
    Entry("torch.compile, huge pages", "torch_esm", {"compiled": "model"}, HUGE_PAGES),
    PLAIN,
    Entry("plain JAX, huge pages", "plain_haiku", environment=HUGE_PAGES),
)
# Sums of the GPU's kernels in a fixed order: what the same bits in every run cost there.
SAME_BITS = {"XLA_FLAGS": "--xla_gpu_exclude_nondeterministic_ops=true"}
ON_GPU = (OURS, COMPILED, PLAIN)
VARIANTS = (
    Entry("nt-jax, loop", "ours", {"unroll": 1}),
    Entry("nt-jax, same bits", "ours", environment=SAME_BITS),
)
"""Of ours on a GPU, where the case asks for them: layers in a loop, and sums in a fixed order."""


class Runner:
    """A contestant in a case, with as many micro-batches as it needs."""

    def __init__(self, entry: Entry, case: Case, folder: pathlib.Path, clock: Clock, on_gpu: bool):
        self.entry, self.case, self.folder, self.clock = entry, case, folder, clock
        self.on_gpu = on_gpu
        self.parts = case.parts.get(entry.module, 1)
        self.row: dict[str, Any] = {"contestant": entry.name}
        self.failed: list[dict[str, str]] = []
        self._start()

    def _start(self) -> None:
        self.child = Contestant(self.entry.module, self.folder, self.clock, self.entry.environment)

    def prepare(self) -> None:
        """Begins and compiles."""
        self._trying(self._prepare)

    def _prepare(self) -> None:
        about = self.child.ask(
            "begin", kind="train", folder=str(self.folder), parts=self.parts, **self.entry.options
        )
        expected = self.case.problem.parameters
        if about["parameters"] != expected:
            raise SystemExit(f"{self.entry.name}: {about['parameters']} parameters, not {expected}")
        if self.on_gpu and about["platform"] == "cpu":
            raise FailedError(f"{self.entry.module} sees no GPU")
        self.row |= {"device": about["device"], "platform": about["platform"]}
        self.row["compile_seconds"] = round(self.child.ask("compile"), 2)

    def load(self) -> None:
        """Runs the first steps."""

        def load() -> None:
            self.row["losses"] = self.child.ask("load", steps=FIRST_STEPS)

        def again() -> None:
            self._prepare()
            load()

        self._trying(load, again)

    def _trying(self, work: Any, again: Any = None) -> None:
        """Works; out of memory, with twice the micro-batches, or at last with another entry."""
        while True:
            try:
                work()
                self.row["parts"] = self.parts
                return
            except FailedError as error:
                self.child.close()
                text = {"contestant": self.entry.name, "parts": str(self.parts), "why": str(error)}
                if error.no_memory and 2 * self.parts <= self.case.problem.batch:
                    self.failed.append(text)
                    self.parts *= 2
                elif self.entry.instead is not None and self.clock.left > 0:
                    self.failed.append(text)
                    self.entry = self.entry.instead
                    self.row = {"contestant": self.entry.name}
                else:
                    raise
                self._start()
                work = again or work


def run_case(
    case: Case, entries: Sequence[Entry], products: Mapping[str, Contestant],
    clock: Clock, options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Everything of a case."""
    load_average = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="nt-jax-bench-") as name:
        folder = pathlib.Path(name)
        runners = [
            Runner(entry, case, folder, clock, options.gpu and not options.small)
            for entry in entries
        ]
        try:
            case.problem.write(folder, case.same_weights)
            case.problem.write_batches(folder)
            ready = _prepared(runners, at_once=options.gpu)
            seconds: dict[str, list[float]] = {}
            peaks: dict[str, list[float]] = {name: [] for name in products}
            groups = case.groups or (tuple({entry.module for entry in entries}),)
            for group in groups:
                members = [runner for runner in ready if runner.entry.module in group]
                found = _group(members, products, clock, options)
                for name, values in found.items():
                    (peaks[name] if name in peaks else seconds.setdefault(name, [])).extend(values)
                load_average.append(os.getloadavg()[0])
        finally:
            for runner in runners:
                runner.child.close()
    peak = {name: spread(values) for name, values in peaks.items() if values}
    return {
        "case": case.name,
        "model": case.problem.name,
        "parameters": case.problem.parameters,
        "dtype": case.problem.experiment.model.compute_dtype,
        "remat": case.problem.experiment.model.remat,
        "batch": case.problem.batch,
        "length": case.problem.length,
        "masked": case.problem.experiment.masking.ratio,
        "step_flops": case.problem.step_flops,
        "peak_flops": {name: dataclasses.asdict(values) for name, values in peak.items()},
        "same_weights": case.same_weights,
        "together": [list(group) for group in groups],
        "load_average": [round(min(load_average), 1), round(max(load_average), 1)],
        **machine(),
        "rows": _rows(case, runners, seconds, max((p.median for p in peak.values()), default=0.0)),
        "failed": [failure for runner in runners for failure in runner.failed],
    }


def _prepared(runners: Sequence[Runner], at_once: bool) -> list[Runner]:
    """Those that could be; on a GPU, PyTorch compiles (on the host) beside the others."""
    lanes = [runners]
    if at_once:
        torch = [runner for runner in runners if runner.entry.module == "torch_esm"]
        lanes = [torch, [runner for runner in runners if runner not in torch]]

    def prepare(lane: Sequence[Runner]) -> list[Runner]:
        return [runner for runner in lane if _works(runner, runner.prepare)]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ready = list(itertools.chain.from_iterable(pool.map(prepare, lanes)))
    return [runner for runner in runners if runner in ready]


def _works(runner: Runner, work: Any) -> bool:
    try:
        work()
        return True
    except FailedError as error:
        runner.row["failed"] = str(error)
        print(f"{runner.entry.name}: {error}", file=sys.stderr)
        return False


def _group(
    members: Sequence[Runner], products: Mapping[str, Contestant], clock: Clock,
    options: argparse.Namespace,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds a step of each member, and FLOP/s of the products, round by round."""
    members = [runner for runner in members if _works(runner, runner.load)]
    turns: dict[str, Any] = {}
    for runner in members:
        try:
            once = runner.child.ask("turn", steps=1)
        except FailedError as error:
            runner.row["failed"] = str(error)
            continue
        steps = max(1, min(100, round(options.turn / once)))
        runner.row["steps_a_turn"] = steps
        turns[runner.entry.name] = lambda child=runner.child, steps=steps: child.ask(
            "turn", steps=steps
        )
    for name, child in products.items():
        turns[name] = lambda child=child: child.ask("turn", seconds=options.turn / 4)
    found, failed = take_turns(turns, options.rounds, clock, reserve=3 * options.turn)
    for runner in members:
        if runner.entry.name in failed:
            runner.row["failed"] = str(failed[runner.entry.name])
        elif "failed" not in runner.row:
            runner.row["peak_bytes"] = runner.child.ask("peak")
        runner.child.close()
    return found


def _rows(
    case: Case, runners: Sequence[Runner], seconds: Mapping[str, list[float]], peak: float
) -> list[dict[str, Any]]:
    """The measured rows, ours first."""
    tokens = case.problem.batch * case.problem.length
    ours = seconds.get(OURS.name, [])
    expected = runners[0].row.get("losses")
    limit = TOLERANCE[case.problem.experiment.model.compute_dtype]
    rows = []
    for runner in runners:
        row, mine = runner.row, seconds.get(runner.entry.name, [])
        if "failed" not in row and mine:
            took = spread(mine)
            row["step_seconds"] = dataclasses.asdict(took)
            row["turns"] = [round(value, 6) for value in mine]
            row["tokens_per_s"] = tokens / took.median
            row["utilisation"] = case.problem.step_flops / took.median / peak if peak else None
            # Round by round, so that what slows the whole machine slows both sides.
            ratios = [theirs / own for theirs, own in zip(mine, ours, strict=False)]
            row["ours_is_times"] = spread(ratios).median if ratios else None
            if expected and case.same_weights:
                pairs = zip(row["losses"], expected, strict=True)
                row["loss_difference"] = max(abs(a / b - 1) for a, b in pairs)
                row["agrees"] = row["loss_difference"] <= limit
        rows.append(row)
    return rows


def save(found: dict[str, Any], path: pathlib.Path, order: Sequence[str]) -> dict[str, Any]:
    """Writes JSON and Markdown; cases that were not run now keep what they have."""
    before = json.loads(path.read_text())["cases"] if path.is_file() else []
    table = {case["case"]: case for case in [*before, found]}
    cases = [table[name] for name in order if name in table]
    result = {"benchmark": "train_step", "cases": cases}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), train_tables.markdown(result))
    return result


def main() -> None:
    """Runs the cases, writes and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE[=BATCH]", help="default: all")
    parser.add_argument("--gpu", action="store_true", help="the published models on a GPU")
    parser.add_argument("--small", action="store_true", help="the GPU's run on small shapes")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--turn", type=float, default=None, help="seconds of a turn, about")
    parser.add_argument("--seconds", type=float, default=None, help="after which nothing goes on")
    parser.add_argument("--compile", choices=("model", "layers"), default="model",
                        help="what torch.compile gets on a GPU")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="contestants")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="folder of the results")
    options = parser.parse_args()
    options.gpu = options.gpu or options.small
    options.turn = options.turn or (1.5 if options.gpu else 4.0)
    clock = Clock(options.seconds or (340.0 if options.gpu else 3600.0))
    cases = small_cases() if options.small else gpu_cases() if options.gpu else cpu_cases()
    entries = [_with_compile(entry, options.compile) for entry in ON_GPU if options.gpu] or ON_CPU
    out = options.out or (ROOT / "build" / "benchmarks" if options.small else RESULTS)
    path = out / ("train_step_gpu.json" if options.gpu else "train_step.json")
    size, dtype = (512 if options.small else 8192, "bfloat16") if options.gpu else (2048, "float32")
    bad, result = False, None
    with tempfile.TemporaryDirectory(prefix="nt-jax-bench-") as name:
        products = contest.start_products(pathlib.Path(name), clock, size, dtype)
        for case in chosen_cases(cases, options.cases):
            if clock.left <= (10 if options.small else 60 if options.gpu else 30):
                print(f"{case.name}: no time left", file=sys.stderr)
                continue
            asked = [*entries, *(VARIANTS if options.gpu and case.variants else ())]
            chosen = [entry for entry in asked if not options.only or entry.name in options.only]
            found = run_case(case, chosen, products, clock, options)
            bad |= any(row.get("agrees") is False for row in found["rows"])
            if any("step_seconds" in row for row in found["rows"]):
                result = save(found, path, [case.name for case in cases])
            print(train_tables.table([found]), flush=True)
        for child in products.values():
            child.close()
    if result:
        print(train_tables.markdown(result))
    if bad:
        raise SystemExit("losses differ: these contestants do not compute the same")


def _with_compile(entry: Entry, parts: str) -> Entry:
    if entry.options.get("compiled"):
        return dataclasses.replace(entry, options={**entry.options, "compiled": parts})
    return entry


if __name__ == "__main__":
    main()
