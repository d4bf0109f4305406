"""The results of train_step.py in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peers.contest import loader_headroom

_HEADER = (
    "case", "contestant", "tokens/s", "ms a step (min to max)", "utilisation", "peak memory, GB",
    "compile, s", "ours is",
)  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The page for the documentation."""
    cases = result["cases"]
    on_gpu = any(row.get("platform") in ("gpu", "cuda") for c in cases for row in c["rows"])
    command = "python benchmarks/train_step.py" + (" --gpu" if on_gpu else "")
    lines = [
        "# Train step: this package, PyTorch, a plain JAX step",
        "",
        f"`{command}`. Every contestant is a process of its own; they take turns, and the table "
        "shows medians of the turns with their extremes. All have the same parameters in number, "
        "the same batch, 15 % masked; losses of the first steps agree where they start from the "
        "same weights. Our step also draws its masks; the others get theirs ready-made.",
        "",
        "- `nt-jax`: the program of `nt-jax pretrain`, in the environment of the command line.",
        "- `torch`: v1 is transformers' EsmForMaskedLM, v2 the code of our exports (without the "
        "padding mask, for windows are full); SDPA attention, fused AdamW"
        + ("; bfloat16 autocast." if on_gpu else "; float32.")
        + " `huge pages`: with the malloc setting that nt-jax gives itself.",
        "- `plain JAX`: a jitted Haiku step as the published model is built: dense attention with "
        "float32 softmax, logits at all positions, no donation, layers in a Python loop.",
        "",
        "Utilisation: model FLOPs (nt_jax/throughput.py: head on the masked positions alone, "
        "nothing recomputed counted) over the larger of two measured products of large random "
        "matrices. "
        + (
            "Peak memory: of the framework's allocator on the GPU."
            if on_gpu
            else "Peak memory: resident while stepping, beyond Python and the libraries."
        )
        + " Compile: JAX, tracing and compiling; PyTorch, what the first step takes more. "
        "`ours is`: how many times as fast ours is, median of the rounds' ratios.",
        "",
        table(cases),
        "",
        *_notes(cases),
    ]
    fast = [
        {**row, "case": case["case"], "length": case["length"]}
        for case in cases
        for row in case["rows"]
    ]
    headroom = loader_headroom(fast)
    return "\n".join([*lines, *([headroom, ""] if headroom else [])])


def table(cases: Sequence[Mapping[str, Any]]) -> str:
    """One line a contestant and case."""
    lines = [f"| {' | '.join(_HEADER)} |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(_cells(case, row))} |" for case in cases for row in case["rows"]]
    return "\n".join(lines)


def _cells(case: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    size = f"{case['batch']} x {case['length']}"
    parts = f" in {row['parts']} parts" if row.get("parts", 1) > 1 else ""
    yield f"{case['case']}, {case['parameters'] / 1e6:.1f}M, {size}"
    yield row["contestant"] + parts
    if "step_seconds" not in row:
        yield row.get("failed", "not measured").replace("|", "/")
        yield from [""] * 5
        return
    took = {name: 1e3 * row["step_seconds"][name] for name in ("median", "low", "high")}
    yield f"{row['tokens_per_s']:,.0f}"
    yield f"{took['median']:.4g} ({took['low']:.4g} to {took['high']:.4g})"
    yield f"{row['utilisation']:.0%}" if row["utilisation"] else ""
    yield f"{row['peak_bytes'] / 1e9:.2f}" if "peak_bytes" in row else ""
    yield f"{row['compile_seconds']:.1f}" if row.get("compile_seconds") else "-"
    times = row.get("ours_is_times")
    yield f"{times:.2f}x" if times and row["contestant"] != "nt-jax" else ""


def _notes(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where and when each case was measured, and what went wrong."""
    for case in cases:
        peaks = ", ".join(
            f"{name.removeprefix('product ')} {values['median'] / 1e12:.3g} TFLOP/s"
            for name, values in case["peak_flops"].items()
        )
        versions = ", ".join(f"{name} {text}" for name, text in case["versions"].items())
        devices = sorted({row["device"] for row in case["rows"] if "device" in row})
        low, high = case["load_average"]
        found = [row["loss_difference"] for row in case["rows"] if "loss_difference" in row]
        if found:
            agree = all(row.get("agrees", True) for row in case["rows"])
            losses = f"losses {'agree within' if agree else 'DIFFER by'} {max(found):.1g}"
        else:
            losses = "weights of their own, so losses are not compared"
        together = ""
        if len(case["together"]) > 1:
            groups = "; ".join(" with ".join(group) for group in case["together"])
            together = f" Memory: took turns only {groups}."
        yield (
            f"{case['case']} ({case['dtype']}, remat {case['remat']}): {case['date']}, "
            f"{', '.join(devices)} of {case['cpu_count']} cores ({case['processor']}), load "
            f"average {low} to {high}; product {peaks}; {losses}.{together} Python "
            f"{case['python']}, {versions}."
        )
        yield ""
        for failure in case["failed"]:
            yield (
                f"{case['case']}: {failure['contestant']} with {failure['parts']} micro-batches "
                f"failed: {failure['why']}"
            )
            yield ""
