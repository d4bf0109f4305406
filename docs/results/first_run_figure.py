"""Draws docs/images/first_run.png from the committed metrics of the first real run.

python docs/results/first_run_figure.py
"""

import json
import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    """Loss on `<mask>` positions against tokens, with the paired interval below."""
    lines = (HERE / "yeast_nano.metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("split") == "validation"]
    tokens = np.array([row["tokens"] for row in rows]) / 1e6
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    top.plot(tokens, [row["mask_loss"] for row in rows], "o-", color="#0d9f76", label="NT v2 nano")
    top.axhline(rows[0]["unigram_mask_loss"], ls="--", color="#8b93a1", label="6-mer frequencies")
    top.set(ylabel="nats per <mask>", title="S. cerevisiae chromosome XVI, held out")
    top.legend(frameon=False)
    middle, low, high = (
        np.array([row[f"mask_difference{end}"] for row in rows]) for end in ("", "_low", "_high")
    )
    bottom.errorbar(
        tokens, middle, [middle - low, high - middle], fmt="o-", color="#0d9f76", capsize=3
    )
    bottom.axhline(0, ls="--", color="#8b93a1")
    bottom.set(xlabel="million tokens", ylabel="difference, 95 % interval")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    (HERE.parent / "images").mkdir(exist_ok=True)
    figure.savefig(HERE.parent / "images" / "first_run.png", dpi=130)


if __name__ == "__main__":
    main()
