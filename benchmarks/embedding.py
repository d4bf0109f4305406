"""Speed of embedding beside PyTorch and the published way in JAX, side by side in one run.

    python benchmarks/embedding.py [CASE ...]          # CPU, float32, small models
    python benchmarks/embedding.py --gpu [CASE ...]    # one GPU, bfloat16, the published models
    python benchmarks/embedding.py --small             # the GPU run with tiny shapes, for a CPU

From sequences to mean embeddings of the last layer on the host. Contestants, each a process of its
own, with the same weights: `LoadedModel.embed`, which `nt-jax embed` calls, from letters; PyTorch
(v1: transformers' own ESM, v2: the code that exports carry) in inference mode, SDPA attention,
weights in bfloat16 on a GPU, from tokens sorted by length in batches as large as ours; the
published way in JAX, from tokens padded to the longest, which computes the logits as well. All
vectors must agree. The contestants take turns, round after round.

Other cases than those asked for keep the rows they have. Writes embedding.json and embedding.md
(with --gpu embedding_gpu) to --out after each case.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()
from peers import contest  # noqa: E402

contest.stay_off_devices()

from peers import embedding_tables  # noqa: E402
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
from peers.problem import Problem, problem, shaped  # noqa: E402
from peers.train_cases import small_v1  # noqa: E402

from nt_jax.files import write_atomically  # noqa: E402

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Norm of a difference of vectors over the norm of ours, the largest of all sequences."""
OURS = Entry("nt-jax", "ours")
ON_CPU = (
    OURS,
    Entry("torch", "torch_esm"),
    Entry("torch, huge pages", "torch_esm", environment=HUGE_PAGES),
    Entry("plain JAX", "plain_haiku"),
    Entry("plain JAX, huge pages", "plain_haiku", environment=HUGE_PAGES),
)
ON_GPU = (
    OURS,
    Entry("torch", "torch_esm"),
    Entry("torch.compile", "torch_esm", {"compiled": "model"}),
    Entry("plain JAX", "plain_haiku"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the lengths of what it embeds."""

    name: str
    problem: Problem
    sequences: int
    shortest: int
    """Tokens; as long as the longest: all windows are full."""

    @property
    def full(self) -> bool:
        """Whether there are no pads."""
        return self.shortest == self.problem.length

    def lengths(self) -> list[int]:
        """Tokens of each sequence, `<cls>` included."""
        rng = np.random.default_rng(1)
        found = rng.integers(self.shortest, self.problem.length, self.sequences, endpoint=True)
        return [int(length) for length in found]


def cpu_cases() -> list[Case]:
    """Small models in float32."""
    micro, nano = (problem(f"nt_v2_{n}", 8, 256, "float32") for n in ("micro", "nano"))
    return [
        Case("v1_22m", shaped(small_v1(), 8, 256, "float32"), 64, 256),
        Case("v2_micro", micro, 128, 256),
        Case("v2_nano", nano, 256, 256),
        Case("v2_nano_mixed", nano, 256, 32),
    ]


def gpu_cases() -> list[Case]:
    """The published models, most wanted first."""
    v1 = problem("nt_v1_500m_human_ref", 8, 1000, "bfloat16")
    large = problem("nt_v2_500m_multispecies", 8, 2048, "bfloat16")
    small = problem("nt_v2_50m_multispecies", 8, 2048, "bfloat16")
    return [
        Case("v2_500m", large, 256, 2048),
        Case("v1_500m", v1, 512, 1000),
        Case("v2_50m", small, 512, 2048),
        Case("v2_50m_mixed", small, 1024, 128),
    ]


def small_cases() -> list[Case]:
    """Stand-ins for the GPU's cases: two layers, short windows, the same paths."""
    tiny = {"num_layers": 2, "num_heads": 4, "embed_dim": 64, "ffn_dim": 128}
    return [
        dataclasses.replace(
            case,
            problem=shaped(case.problem.experiment, 8, 64, "bfloat16", **tiny),
            sequences=300,
            shortest=64 if case.full else 9,
        )
        for case in gpu_cases()
        if case.name in ("v1_500m", "v2_50m", "v2_50m_mixed")
    ]


def run_case(
    case: Case, entries: Sequence[Entry], products: Mapping[str, Contestant],
    clock: Clock, options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Everything of a case."""
    lengths, load_average = case.lengths(), [os.getloadavg()[0]]
    tokens, flops = sum(lengths), sum(map(case.problem.forward_flops, lengths))
    with tempfile.TemporaryDirectory(prefix="nt-jax-bench-") as name:
        folder = pathlib.Path(name)
        children = {e.name: Contestant(e.module, folder, clock, e.environment) for e in entries}
        try:
            case.problem.write(folder, same_weights=True)
            case.problem.write_sequences(folder, lengths)
            rows = {entry.name: _begin(case, entry, children[entry.name], folder)
                    for entry in entries}  # fmt: skip
            turns: dict[str, Any] = {
                name: lambda child=children[name]: child.ask("turn")
                for name, row in rows.items() if "failed" not in row
            }  # fmt: skip
            for name, child in products.items():
                turns[name] = lambda child=child: child.ask("turn", seconds=1.0)
            found, failed = take_turns(turns, options.rounds, clock)
            for name in rows:
                if name in failed:
                    rows[name]["failed"] = str(failed[name])
                elif "failed" not in rows[name]:
                    rows[name]["peak_bytes"] = children[name].ask("peak")
            load_average.append(os.getloadavg()[0])
        finally:
            for child in children.values():
                child.close()
    peaks = {name: spread(found[name]) for name in products if found[name]}
    peak = max((values.median for values in peaks.values()), default=0.0)
    limit = TOLERANCE[case.problem.experiment.model.compute_dtype]
    for name, row in rows.items():
        if "failed" in row or not found.get(name):
            continue
        took = spread(found[name])
        row["seconds"] = dataclasses.asdict(took)
        row["tokens_per_s"] = tokens / took.median
        row["utilisation"] = flops / took.median / peak if peak else None
        pairs = zip(found[name], found.get(OURS.name, []), strict=False)
        ratios = [theirs / own for theirs, own in pairs]
        row["ours_is_times"] = spread(ratios).median if ratios else None
        if "difference" in row:
            row["agrees"] = row["difference"] <= limit
    return {
        "case": case.name,
        "model": case.problem.name,
        "parameters": case.problem.parameters,
        "dtype": case.problem.experiment.model.compute_dtype,
        "sequences": case.sequences,
        "shortest": min(lengths),
        "length": max(lengths),
        "tokens": tokens,
        "flops": flops,
        "peak_flops": {name: dataclasses.asdict(values) for name, values in peaks.items()},
        "load_average": [round(min(load_average), 1), round(max(load_average), 1)],
        **machine(),
        "rows": list(rows.values()),
    }


def _begin(case: Case, entry: Entry, child: Contestant, folder: pathlib.Path) -> dict[str, Any]:
    """The row of a contestant that has embedded everything once, beside our vectors."""
    row: dict[str, Any] = {"contestant": entry.name}
    options = dict(entry.options)
    if entry.module == "torch_esm":
        options["padded"] = not case.full
    if options.get("compiled") and not case.full:
        return row | {"failed": "not tried: every shape of batch is compiled anew"}
    try:
        about = child.ask("begin", kind="embed", folder=str(folder), **options)
        if about["parameters"] != case.problem.parameters:
            raise SystemExit(f"{entry.name}: {about['parameters']} parameters")
        row |= {"device": about["device"], "platform": about["platform"]}
        path = folder / f"{entry.name}.npy"
        row["first_seconds"] = round(child.ask("load", out=str(path)), 2)
    except FailedError as error:
        child.close()
        print(f"{entry.name}: {error}", file=sys.stderr)
        return row | {"failed": str(error)}
    reference = folder / f"{OURS.name}.npy"
    if reference.is_file():
        theirs, own = np.load(path), np.load(reference)
        if theirs.shape != own.shape or not np.isfinite(theirs).all():
            raise SystemExit(f"{entry.name}: vectors of shape {theirs.shape}, or not finite")
        norms = np.linalg.norm(theirs - own, axis=1) / np.linalg.norm(own, axis=1)
        row["difference"] = float(norms.max())
    return row


def save(found: dict[str, Any], path: pathlib.Path, order: Sequence[str]) -> dict[str, Any]:
    """Writes JSON and Markdown; cases that were not run now keep what they have."""
    before = json.loads(path.read_text())["cases"] if path.is_file() else []
    table = {case["case"]: case for case in [*before, found]}
    result = {"benchmark": "embedding", "cases": [table[n] for n in order if n in table]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), embedding_tables.markdown(result))
    return result


def main() -> None:
    """Runs the cases, writes and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument("--gpu", action="store_true", help="the published models on a GPU")
    parser.add_argument("--small", action="store_true", help="the GPU's run on small shapes")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=None, help="after which nothing goes on")
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME", help="contestants")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="folder of the results")
    options = parser.parse_args()
    on_gpu = options.gpu or options.small
    clock = Clock(options.seconds or (100.0 if on_gpu else 3600.0))
    cases = small_cases() if options.small else gpu_cases() if on_gpu else cpu_cases()
    if unknown := set(options.cases) - {case.name for case in cases}:
        raise SystemExit(f"no case {unknown}; known: {', '.join(case.name for case in cases)}")
    entries = [e for e in (ON_GPU if on_gpu else ON_CPU)
               if not options.only or e.name in options.only]  # fmt: skip
    out = options.out or (ROOT / "build" / "benchmarks" if options.small else RESULTS)
    path = out / ("embedding_gpu.json" if on_gpu else "embedding.json")
    size, dtype = (512 if options.small else 8192, "bfloat16") if on_gpu else (2048, "float32")
    bad, result = False, None
    with tempfile.TemporaryDirectory(prefix="nt-jax-bench-") as name:
        products = contest.start_products(pathlib.Path(name), clock, size, dtype)
        for case in cases:
            if options.cases and case.name not in options.cases:
                continue
            if clock.left <= (30 if options.gpu else 10):
                print(f"{case.name}: no time left", file=sys.stderr)
                continue
            found = run_case(case, entries, products, clock, options)
            bad |= any(row.get("agrees") is False for row in found["rows"])
            if any("seconds" in row for row in found["rows"]):
                result = save(found, path, [known.name for known in cases])
            print(embedding_tables.table([found]), flush=True)
        for child in products.values():
            child.close()
    if result:
        print(embedding_tables.markdown(result))
    if bad:
        raise SystemExit("vectors differ: these contestants do not compute the same")


if __name__ == "__main__":
    main()
