"""The results of embedding.py in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HEADER = (
    "case", "contestant", "tokens/s", "s for all (min to max)", "utilisation", "peak memory, GB",
    "first time, s", "ours is", "difference",
)  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The page for the documentation."""
    cases = result["cases"]
    on_gpu = any(case["dtype"] == "bfloat16" for case in cases)
    command = "python benchmarks/embedding.py" + (" --gpu" if on_gpu else "")
    lines = [
        "# Embedding: this package, PyTorch, the published way in JAX",
        "",
        f"`{command}`. From sequences to mean embeddings of the last layer on the host, the same "
        "weights for all. Every contestant is a process of its own; they take turns, and the "
        "table shows medians of the turns with their extremes. Ours starts from letters, the "
        "others from tokens.",
        "",
        "- `nt-jax`: `LoadedModel.embed`, which `nt-jax embed` calls.",
        "- `torch`: v1 is transformers' ESM, v2 the code of our exports; inference mode, SDPA "
        "attention" + (", weights in bfloat16" if on_gpu else ", float32") + ", sorted by length. "
        "`huge pages`: with the malloc setting that nt-jax gives itself.",
        "- `plain JAX`: a jitted Haiku model as the published one is built, its logits included; "
        "all sequences padded to the longest.",
        "",
        "Utilisation: model FLOPs of the encoder over the larger of two measured products of "
        "large random matrices. First time: compilation included. `ours is`: how many times as "
        "fast ours is, median of the rounds' ratios. Difference from our vectors: norm over norm, "
        "the largest of all sequences.",
        "",
        table(cases),
        "",
    ]
    for case in cases:
        versions = ", ".join(f"{name} {text}" for name, text in case["versions"].items())
        devices = sorted({row["device"] for row in case["rows"] if "device" in row})
        low, high = case["load_average"]
        lines += [
            f"{case['case']} ({case['model']}, {case['dtype']}): {case['date']}, "
            f"{', '.join(devices)} of {case['cpu_count']} cores ({case['processor']}), load "
            f"average {low} to {high}. Python {case['python']}, {versions}.",
            "",
        ]
    return "\n".join(lines)


def table(cases: Sequence[Mapping[str, Any]]) -> str:
    """One line a contestant and case."""
    lines = [f"| {' | '.join(_HEADER)} |", "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(_cells(case, row))} |" for case in cases for row in case["rows"]]
    return "\n".join(lines)


def _cells(case: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    lengths = f"{case['length']}"
    if case["shortest"] < case["length"]:
        lengths = f"{case['shortest']} to {case['length']}"
    yield f"{case['case']}, {case['parameters'] / 1e6:.1f}M, {case['sequences']} x {lengths}"
    yield row["contestant"]
    if "seconds" not in row:
        yield row.get("failed", "not measured").replace("|", "/")
        yield from [""] * 6
        return
    took = row["seconds"]
    yield f"{row['tokens_per_s']:,.0f}"
    yield f"{took['median']:.3g} ({took['low']:.3g} to {took['high']:.3g})"
    yield f"{row['utilisation']:.0%}" if row["utilisation"] else ""
    yield f"{row['peak_bytes'] / 1e9:.2f}" if "peak_bytes" in row else ""
    yield f"{row['first_seconds']:.1f}"
    ours = row["contestant"] == "nt-jax"
    yield f"{row['ours_is_times']:.2f}x" if row.get("ours_is_times") and not ours else ""
    yield f"{row['difference']:.1g}" if "difference" in row and not ours else ""
