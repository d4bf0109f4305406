import dataclasses
import html.parser
import json
import math
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from nt_jax.config import DataConfig, Experiment, ModelConfig, TokenizerConfig, TrainConfig, to_dict
from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.task import Audit, Within
from nt_jax.ledger import PHASES
from nt_jax.report.page import write_report
from nt_jax.report.plots import smooth, thin, tokens_text

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and keeps texts, ids and everything a browser would load."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.used: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loaded.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            self.used += re.findall(r"url\(#([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def workdir(folder: pathlib.Path, **data: Any) -> pathlib.Path:
    experiment = Experiment(
        name="run <b>&</b>",
        model=ModelConfig(num_layers=2, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=40),
        tokenizer=TokenizerConfig(k=3),
        data=DataConfig(sequence_length=24, **data),
        train=TrainConfig(steps=1000, global_batch=8),
    )
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "experiment": to_dict(experiment),
        "dataset": "abc123",
        "init_from": None,
        "versions": {"jax": "0.10.2"},
        "git_revision": None,
    }
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def rows(steps: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        row = {"step": step, "loss": 4 + math.exp(-step / 100), "accuracy": 0.1, "lr": 1e-4}
        row |= {"grad_norm": 0.5, "skipped": 0, "tokens": step * 192, "tokens_per_s": 2000.0}
        out.append({**row, "mfu": None, "seconds": 0.1})
        if step % 100 == 0:
            loss = 4 + math.exp(-step / 100)
            head = {"split": "validation", "step": step, "tokens": step * 192, "windows": 9}
            out.append(
                head
                | {"loss": loss, "perplexity": math.exp(loss), "accuracy": 0.1, "mask_loss": loss}
                | {"mask_accuracy": 0.1, "unigram_mask_loss": 4.15, "mask_difference": loss - 4.15}
                | {"mask_difference_low": loss - 4.2, "mask_difference_high": loss - 4.1}
            )
    return out


def write_rows(folder: pathlib.Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def score(value: float | None) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"value": value, "low": low, "high": high}


def probe_entry(task: str, step: int, simulated: bool) -> dict[str, Any]:
    def family(name: str, unit: str, base: float) -> dict[str, Any]:
        scores = {"mcc": score(base), "auroc": score(None), "accuracy": score(0.8)}
        numbers = (0,) if unit == "network" else (1, 2)
        variants = [{unit: k, **scores, "inner": base} for k in numbers]
        chosen = {unit: [numbers[-1]], **scores}
        return {"name": name, "unit": unit, "chosen": chosen, "variants": variants}

    return {
        "task": task,
        "kind": "classes",
        "step": step,
        "tokens": step * 2048,
        "simulated": simulated,
        "scored": 1234,
        "audit": dataclasses.asdict(
            Audit({"test.csv": 1234}, 5, 0, 0, 0, 0, test_within=Within(7, 2, 1))
        ),
        "overlap": {"windows": 50, "of": 50, "seen": 321, "sequences": 1234},
        "families": [
            family("trained", "layer", 0.61),
            family("random init", "layer", 0.31),
            family("k-mers", "k", 0.41),
            family("CNN", "network", 0.51),
        ],
        "differences": [
            {"against": "random init", "mcc": score(0.3)},
            {"against": "k-mers", "mcc": score(0.2)},
            {"against": "CNN", "mcc": score(0.1)},
        ],
    }


def read(folder: pathlib.Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>")
    # Not one address, loaded or not: an SVG's namespaces and metadata are gone as well.
    assert not re.search(r"https?:|//[a-z]", text)
    assert "@import" not in text
    page = Page(text)
    assert all(target.startswith("#") for target in page.loaded)
    targets = {target.removeprefix("#") for target in page.loaded} | set(page.used)
    assert targets <= set(page.ids)
    return page


def test_a_whole_run(tmp_path):
    folder = workdir(tmp_path / "run", path=str(tmp_path / "windows"))
    write_rows(folder, rows(1000))
    (folder / "DONE").write_text("step 1000\n")
    (tmp_path / "windows").mkdir()
    card = {
        "kind": "real",
        "recipe": {"name": "hf6200", "length": 6200, "stride": 6000, "jitter": 200},
        "splits": {"train": 2000, "validation": 50},
        "validation": ["XVI"],
        "dropped": {"n_windows": 3, "short_contigs": 0},
        "sources": [{"name": "yeast", "contigs": 17, "bases": 12157105, "gc": 0.3815}],
    }
    (tmp_path / "windows" / "datacard.json").write_text(json.dumps(card))
    for step, name in ((500, "a"), (1000, "b")):
        (folder / "probe" / name).mkdir(parents=True)
        entries = [probe_entry("gue/EMP/H3K4me3", step, False), probe_entry("coding", step, True)]
        (folder / "probe" / name / "probe.json").write_text(json.dumps(entries))
    page = read(folder)
    text = page.text
    # Loss, advantage, rate, gradient, throughput; probes beside controls, by layer, as a map and
    # against tokens.
    assert page.tags.count("svg") == 9
    assert "DNABERT-2, published, fine-tuned" in text
    assert "Published means over all tasks of gue (MCC, of virus/covid F1), not drawn:" in text
    assert "Not drawn, because" not in text
    assert "gue/EMP/H3K4me3 read test.csv 1,234; dropped from training: 5 also in test" in text
    assert "within test, all kept and scored: 7 repeats, 2 with two labels, 1 with another" in text
    assert "321 of 1,234 scored sequences share at least half of their 24-mers" in text
    assert "run <b>&</b>" in text
    assert "Finished: step 1,000 of 1,000 (100%)." in text
    assert "4.0000 nats a token (perplexity 55), step 1,000" in text
    assert "-0.1500 [-0.2000, -0.1000] nats a token: the model knows more than" in text
    assert "2K tokens/s (median)" in text
    assert "1.7 min" in text
    assert "2 earlier evaluations" in text
    assert "gue/EMP/H3K4me3 MCC 1,000 1,234 0.610 [0.510, 0.710] 0.310 [0.210, 0.410]" in text
    assert "coding (simulated) MCC 1,000" in text
    assert "windows of 6,200 bases, stride 6,000" in text
    assert "train 2,000, validation 50" in text
    assert "validation: XVI" in text
    assert "n windows 3" in text
    assert "12,157,105" in text
    assert "short contigs" not in text
    assert "data are simulated" not in text


def test_a_published_score_of_another_metric_is_said_and_not_drawn(tmp_path):
    """The published scores of virus/covid are F1; the bars of classes are MCC."""
    folder = workdir(tmp_path / "run")
    write_rows(folder, rows(10))
    (folder / "probe").mkdir()
    entries = [probe_entry("gue/virus/covid", 10, False)]
    (folder / "probe" / "probe.json").write_text(json.dumps(entries))
    text = read(folder).text
    assert "published, fine-tuned" not in text
    assert (
        "Not drawn, because F1 is not MCC: published F1 of gue/virus/covid, NT-2.5B-multi 0.730, "
        "DNABERT-2 0.710."
    ) in text


def test_an_empty_run_says_what_is_missing(tmp_path):
    page = read(workdir(tmp_path / "run", path="gone/windows"))
    assert "svg" not in page.tags
    for sentence in (
        "No step has been logged yet.",
        "No training rows in metrics.jsonl yet: no curves.",
        "No evaluation has been logged yet.",
        "None yet: nt-jax probe",
        "The data card is not to be found from here (gone/windows)",
        "cannot say whether the data are real or simulated",
    ):
        assert sentence in page.text


def test_a_run_in_progress(tmp_path):
    folder = workdir(tmp_path / "run")
    lines = rows(200)
    # A non-finite step is null in the file; the last line is torn.
    lines[3] |= {"loss": None, "grad_norm": None, "skipped": 1}
    for line in lines[4:]:
        line["skipped"] = 1
    write_rows(folder, lines)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 210, "lo')
    page = read(folder)
    assert "Not finished: step 200 of 1,000 (20%)." in page.text
    assert "Skipped steps (non-finite) 1" in page.text
    assert page.tags.count("svg") == 5


def test_a_run_with_one_row(tmp_path):
    folder = workdir(tmp_path / "run")
    write_rows(folder, rows(10))
    assert read(folder).tags.count("svg") == 4


def test_simulated_data_are_named_first(tmp_path):
    folder = workdir(tmp_path / "run")
    (folder / "datacard.json").write_text('{"kind": "simulated"}')
    text = read(folder).text
    assert text.index("The training data are simulated") < text.index("In short")


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    folder = workdir(tmp_path / "run")
    write_rows(folder, rows(100))
    (folder / "datacard.json").write_text("[")
    (folder / "probe").mkdir()
    (folder / "probe" / "probe.json").write_text("{")
    page = read(folder)
    assert "datacard.json: Expecting value" in page.text
    assert "probe.json: damaged" in page.text
    assert page.tags.count("svg") == 5


def test_a_folder_that_is_no_workdir_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a workdir"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_long_runs_stay_small(tmp_path):
    folder = workdir(tmp_path / "run")
    write_rows(folder, rows(60_000))
    assert len(rows(60_000)) == 6600
    assert write_report(folder).stat().st_size < 600_000


def test_thin_averages_and_keeps_short_curves():
    x = np.arange(1000.0)
    few_x, few_y = thin(x, 2 * x, 10)
    assert len(few_x) == 10
    np.testing.assert_allclose(few_y, 2 * few_x)
    assert few_x.mean() == pytest.approx(x.mean())
    same_x, same_y = thin(x[:5], np.array([1.0, np.nan, 3, 4, 5]))
    assert same_x.tolist() == [0, 2, 3, 4]
    assert same_y.tolist() == [1, 3, 4, 5]


def test_smooth_is_a_mean_of_neighbours():
    y = np.array([0.0, 3, 6, 9, 12, 15])
    assert smooth(y).tolist() == [3.0, 4.5, 6.0, 9.0, 10.5, 12.0]
    assert smooth(np.array([2.0])).tolist() == [2.0]
    noise = np.random.default_rng(0).normal(size=2000)
    assert smooth(noise).std() < 0.3


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (512, "512"), (512_000, "512K"), (1.5e6, "1.5M"), (3e11, "300B"), (1e12, "1T")],
)
def test_tokens_text(count: float, text: str):
    assert tokens_text(count) == text


def life(began: float, ended: float, ending: str, **seconds: float) -> dict[str, Any]:
    return {
        "began": began, "ended": ended, "first_step": 0, "last_step": 500, "ending": ending,
        "seconds": dict.fromkeys(PHASES, 0.0) | seconds,
    }  # fmt: skip


def test_where_the_time_went(tmp_path):
    folder = workdir(tmp_path / "run")
    lines = [
        life(0.0, 300.0, "killed", step=240.0, compile=40.0, start_up=20.0),
        life(400.0, 700.0, "finished", idle=100.0, step=200.0, lost=80.0, input=60.0, save=40.0),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "goodput.jsonl").write_text(text)
    page = read(folder)
    assert "Goodput 51.4%" in page.text  # 360 s of kept steps, 700 s in all
    assert "steps done again after a restart or rollback 80.0 s 11.4%" in page.text
    assert "all, since the first start 11.7 min 100%" in page.text
    assert "2 lives of the process" in page.text
    assert "1970-01-01 00:06:40 0 to 500 5.0 min 3.3 min 80.0 s finished" in page.text
    (folder / "goodput.jsonl").write_text("{}\n")
    assert "Could not be read: goodput.jsonl" in read(folder).text


def test_rollbacks_and_spikes_are_in_the_headline(tmp_path):
    folder = workdir(tmp_path / "run")
    write_rows(folder, [row | {"spikes": 3} for row in rows(50)])
    config = json.loads((folder / "config.json").read_text())
    config["lineage"] = [{"step": 20, "rolled_back_from": 33, "batches_left_out": 13}]
    (folder / "config.json").write_text(json.dumps(config))
    text = read(folder).text
    assert "Skipped steps (spikes) 3" in text
    assert "Rollbacks 1, 13 batches left out" in text
