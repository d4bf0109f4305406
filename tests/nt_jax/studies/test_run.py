"""`study run`, `status` and `report`, with real training processes."""

import json
import pathlib
import random
import signal
import subprocess

import pytest

from nt_jax import cli
from nt_jax.commands import study_run
from nt_jax.config import from_dict
from nt_jax.errors import InputError
from nt_jax.evaluation import probe
from nt_jax.files import owning
from nt_jax.launch.processes import StillWrittenError, is_written, writing
from nt_jax.saved_steps import committed_steps
from nt_jax.studies import folder as folders
from nt_jax.studies.find import find_study
from nt_jax.studies.run import shares
from nt_jax.studies.table import COLUMNS
from tests.nt_jax.runs import rows
from tests.nt_jax.studies.small import DATA, make_study, start, states, study, table, wait_for

OF = {"sources": ("skewed",), "steps": 120, "losses": '(LossOn(source="flat"),)'}


# --- A study from its first command to its report ---------------------------------------------


@pytest.fixture(scope="module")
def finished(datasets, tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, list[str]]:
    """A study stopped by SIGTERM, gone on with, finished and reported: (file, DIR, errors)."""
    home = tmp_path_factory.mktemp("finished")
    path = make_study(home, **OF)
    words = ["run", str(path), "--out", "out", *DATA]
    one = start(datasets, *words)
    workdir = datasets / "out" / "runs" / "w8-skewed-31.68K-s0"
    wait_for(lambda: committed_steps(workdir / "checkpoints"), one)
    one.send_signal(signal.SIGTERM)
    out, stopped = one.communicate(timeout=300)
    assert one.returncode == 75, stopped
    assert "interrupted" in out
    # The folders of the datasets are kept.
    code, out, err = study(datasets, *words[:4], "--jobs", "2")
    assert code == 0, err
    code, shown, again = study(datasets, "report", str(path), "--out", "out")
    assert (code, shown.strip()) == (0, "out/report.html"), again
    return path, datasets / "out", [stopped, err, out]


def test_stopped_by_sigterm_it_saves_and_goes_on(finished):
    _, root, (stopped, err, out) = finished
    assert "training stopped, saved" in stopped
    assert "[1/2] w8-skewed-31.68K-s0: training\n" in stopped
    assert "w16" not in stopped
    log = (root / "runs" / "w8-skewed-31.68K-s0.log").read_text()
    assert "starts" in log
    assert "resumes at step" in log
    assert "[2/2] w16-skewed-31.68K-s0: loss on flat done in 0:" in err
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["run", "state"]
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["w8-skewed-31.68K-s0", "done"], ["w16-skewed-31.68K-s0", "done"],
    ]  # fmt: skip
    assert lines[-1] == "2 done"
    for name in ("w8", "w16"):
        steps = [row["step"] for row in rows(root / "runs" / f"{name}-skewed-31.68K-s0")
                 if "split" not in row]  # fmt: skip
        assert steps == list(range(2, 121, 2))


def test_what_is_done_is_not_done_again(finished, datasets):
    path, root, _ = finished
    before = {file: file.stat().st_mtime_ns for file in root.glob("runs/*/*")}
    code, _, err = study(datasets, "run", str(path), "--out", "out")
    assert (code, err) == (0, "")
    assert {file: file.stat().st_mtime_ns for file in root.glob("runs/*/*")} == before


def test_the_table(finished):
    _, root, _ = finished
    small, large = table(root)
    last = rows(root / "runs" / "w8-skewed-31.68K-s0")[-1]
    assert last["split"] == "validation"
    assert small["run"] == "w8-skewed-31.68K-s0"
    assert (small["state"], small["held_out"], large["held_out"]) == ("done", "no", "yes")
    assert [small[f"tag:{key}"] for key in ("size", "source", "tokens", "seed")] == [
        "w8", "skewed", "31.68K", "0",
    ]  # fmt: skip
    assert int(small["tokens"]) == 120 * 8 * 33
    assert int(small["bases"]) == 120 * 8 * 32 * 3
    assert float(small["mask_loss"]) == last["mask_loss"]
    assert float(small["loss"]) == last["loss"]
    assert float(small["mask_nats_per_base"]) == last["mask_loss"] / 3
    assert float(small["nats_per_base"]) == last["loss"] / 3
    assert float(small["unigram_mask_loss"]) == last["unigram_mask_loss"]
    assert float(small["mask_difference_low"]) == last["mask_difference_low"]
    assert int(large["parameters"]) > int(small["parameters"]) > int(small["parameters_in_blocks"])
    evaluated = json.loads((root / "evaluations" / small["run"] / "on" / "flat.json").read_text())
    assert float(small["on:flat:mask_loss"]) == evaluated["mask_loss"]
    assert evaluated["data"].endswith("flat")
    # Skewed frequencies fit a flat genome badly: it is not its own that was read twice.
    assert evaluated["unigram_mask_loss"] > last["unigram_mask_loss"] + 0.3
    assert set(COLUMNS) <= set(small)


def test_the_json_holds_the_same_numbers(finished):
    _, root, _ = finished
    shown = json.loads((root / "table.json").read_text())
    for one, line in zip(shown["rows"], table(root), strict=True):
        assert {k: "" if v is None else str(v) for k, v in one.items()} == line
    assert {name for name in shown["rows"][0] if ":" not in name} == {
        name for name in shown["columns"] if ":" not in name
    }


def test_times_are_apart(finished):
    _, root, _ = finished
    header, *lines = (root / "timings.tsv").read_text().splitlines()
    first = dict(zip(header.split("\t"), lines[0].split("\t"), strict=True))
    assert int(first["starts"]) == 2
    assert float(first["wall_seconds"]) > float(first["step_seconds"]) > 0
    assert float(first["tokens_per_s"]) > 0
    assert "seconds" not in (root / "table.tsv").read_text().splitlines()[0]


def test_the_report_again_gives_the_same_table(finished, datasets):
    path, root, _ = finished
    before = [(root / name).read_bytes() for name in ("table.tsv", "table.json", "report.html")]
    assert study(datasets, "report", str(path), "--out", "out")[0] == 0
    after = [(root / name).read_bytes() for name in ("table.tsv", "table.json", "report.html")]
    assert after == before


def test_the_page_loads_nothing_and_holds_the_losses(finished):
    from tests.nt_jax.report.test_page import Page

    _, root, _ = finished
    text = (root / "report.html").read_text()
    page = Page(text)
    assert all(target.startswith("#") for target in page.loaded)
    for row in table(root):
        assert row["run"] in text
        assert f"{float(row['mask_loss']):.4f}" in text
        assert f"{float(row['on:flat:mask_loss']):.4f}" in text
    assert "w16-skewed-31.68K-s0 *" in text
    assert "2 of 2 done" in text


def test_status_of_a_finished_study(finished, datasets):
    path, _, _ = finished
    found = states(datasets, path, "out")
    assert {one["state"] for one in found.values()} == {"done"}
    one = found["w8-skewed-31.68K-s0"]
    assert (one["step"], one["steps"], one["seconds_left"], one["stage"]) == (120, 120, 0.0, "")


def test_another_declaration_is_refused_and_an_added_run_waits(finished, datasets, tmp_path):
    path, _, _ = finished
    other = make_study(tmp_path, **{**OF, "steps": 121})
    code, out, err = study(datasets, "run", str(other), "--out", "out")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "was declared and is no more" in err
    changed = path.read_text().replace("peak_lr=3e-3", "peak_lr=1e-3")
    other.write_text(changed)
    code, out, err = study(datasets, "status", str(other), "--out", "out")
    assert (code, out) == (2, "")
    assert "w8-skewed-31.68K-s0 was declared with optim.peak_lr=0.003, now with 0.001" in err
    more = make_study(tmp_path, **OF, seeds=(0, 1))
    found = states(datasets, more, "out")
    assert [one["state"] for one in found.values()] == ["done", "waiting", "done", "waiting"]
    code, out, err = study(datasets, "run", str(more), "--out", "out", "--dry-run")
    assert code == 0, err
    commands = out.splitlines()
    assert len(commands) == 4
    assert all("s1" in command for command in commands)
    assert "pretrain out/experiments/w8-skewed-31.68K-s1.json --workdir out/runs/" in commands[0]


def test_a_config_that_a_study_wrote_is_the_text_of_its_experiment(finished):
    path, root, _ = finished
    run = find_study(str(path)).runs[0]
    stored = json.loads((root / "experiments" / f"{run.name}.json").read_text())
    assert from_dict(type(run.experiment), stored) == run.experiment


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nt_papr", "--out", "new"], "did you mean 'nt_paper'"),
        (["run", "small.py"], "required: --out"),
        (["run", "small.py", "--out", "new", "--only", "w8-flat"], "did you mean 'w8-flat-10.56K"),
        (["run", "small.py", "--out", "new"], "where is the dataset 'flat'"),
        (["run", "small.py", "--out", "new", "--data", "falt=x"], "did you mean 'flat'"),
        (["run", "small.py", "--out", "new", "--data", "flat"], "needs SOURCE=DIR"),
        (
            ["run", "small.py", "--out", "new", "--data", "flat=/nowhere"],
            "/nowhere: no such folder",
        ),
        (["run", "small.py", "--out", "new", "--data", "flat=a", "--jobs", "0"], "--jobs"),
        (["run", "small.py", "--out", ".", "--data", "flat=flat"], "not empty and no study's"),
        (["status", "small.py", "--out", "new"], "no study was run here"),
        (["report", "small.py", "--out", "new"], "no study was run here"),
        (["stauts", "small.py"], "did you mean 'status'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, message, datasets, capfd, monkeypatch):
    make_study(datasets)
    monkeypatch.chdir(datasets)
    before = {path.name for path in datasets.iterdir()} | {"__pycache__"}
    code = cli.main(["study", *words])
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert err.startswith("nt-jax: ")
    assert message in err
    assert {path.name for path in datasets.iterdir()} <= before


def test_a_held_out_run_waits_for_what_predicts_it(datasets, tmp_path, capfd, monkeypatch):
    path = make_study(tmp_path)
    monkeypatch.chdir(datasets)
    root, large, small = tmp_path / "out", "w16-flat-10.56K-s0", "w8-flat-10.56K-s0"
    words = ["study", "run", str(path), "--out", str(root), *DATA[:2], "--only", large]
    assert cli.main(words) == 1
    told = f"{large}: held out, and not trained yet of the runs that predict: {small}"
    assert f"{told}\n" in capfd.readouterr().err
    assert not list(root.glob("prediction.json"))
    assert not list((root / "runs").iterdir())
    # Where the others cannot be trained, it begins once it is named.
    study, folder = find_study(str(path)), folders.Folder(root)
    folder.failed(study.run(small)).write_text("[]")
    held_out = [study.run(large)]
    assert study_run.foretell(study, folder, held_out, True, set()) == []
    assert f"{told}; --only with their names begins them" in capfd.readouterr().err
    assert study_run.foretell(study, folder, held_out, True, {large}) == held_out
    assert "nothing is predicted: no run is trained" in capfd.readouterr().err
    # What has begun goes on.
    folder.workdir(study.run(large)).mkdir()
    assert study_run.foretell(study, folder, held_out, True, set()) == held_out
    assert capfd.readouterr().err == ""


def test_what_would_be_run_is_printed_in_order(datasets, tmp_path, capfd, monkeypatch):
    path = make_study(tmp_path, losses='(LossOn(source="flat"),)')
    monkeypatch.chdir(datasets)
    words = ["study", "run", str(path), "--out", str(tmp_path / "out"), *DATA[:2], "--dry-run"]
    assert cli.main(words) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["pretrain", "evaluate"] * 2
    assert ["w16" in line for line in lines] == [False, False, True, True]
    assert cli.main([*words, "--evaluate-only"]) == 0
    assert "pretrain" not in capfd.readouterr().out


def test_two_at_once_are_refused(datasets, tmp_path, capfd, monkeypatch):
    make_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    words = ["study", "run", "small.py", "--out", "out", "--data", f"flat={datasets / 'flat'}"]
    with owning(tmp_path / "out"):
        assert cli.main(words) == 2
    err = capfd.readouterr().err
    assert err == (
        "nt-jax: out: another `nt-jax study run` is at work here; see `nt-jax study status`\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


# --- Pieces -----------------------------------------------------------------------------------


def test_a_log_is_locked_for_as_long_as_a_process_has_it(tmp_path):
    log = tmp_path / "a.log"
    assert not is_written(log)
    with writing(log, 0.0) as file:
        child = subprocess.Popen(["sleep", "60"], stdout=file)
        assert is_written(log)
    try:
        assert is_written(log)
        with (
            pytest.raises(StillWrittenError, match="an earlier process still runs"),
            writing(log, 0.2),
        ):
            pass
    finally:
        child.kill()
        child.wait()
    assert not is_written(log)
    with writing(log, 0.0):
        pass


def test_gpus_are_shared_evenly_where_there_are_enough():
    assert shares([], 3) == [(), (), ()]
    assert shares(["0", "1", "2", "3", "4"], 2) == [("0", "1"), ("2", "3")]
    assert shares(["0", "1"], 1) == [("0", "1")]
    with pytest.raises(InputError, match="--jobs 2: 1 GPUs here"):
        shares(["0"], 2)


def test_the_file_that_says_that_a_probe_is_done_is_the_last_that_it_writes():
    assert folders.PROBE_RESULTS == probe.TIDY


@pytest.mark.slow
def test_a_real_probe_stands_in_the_table(datasets, tmp_path):
    draw = random.Random(0)
    lines = ["sequence,label"]
    for number in range(60):
        letters = "AT" if number % 2 else "ACGT"
        lines.append(f"{''.join(draw.choices(letters, k=60))},{number % 2}")
    (tmp_path / "task.csv").write_text("\n".join(lines) + "\n")
    probes = f'(Probe(task="{tmp_path}/task.csv", folds=3, layers=(1, 2)),)'
    path = make_study(tmp_path, probes=probes)
    root = tmp_path / "out"
    only = ["--only", "w8-flat-10.56K-s0"]
    code, _, err = study(datasets, "run", str(path), "--out", str(root), *DATA[:2], *only)
    assert code == 0, err
    assert study(datasets, "report", str(path), "--out", str(root))[0] == 0
    row, other = table(root)
    name = f"probe:{tmp_path}/task.csv:mcc"
    assert 0.5 < float(row[name]) <= 1.0
    assert float(row[f"{name}:low"]) <= float(row[name]) <= float(row[f"{name}:high"])
    assert f"{name}_minus_random_init" in row
    assert other[name] == ""
    assert find_study(str(path)).runs[0].probes[0].layers == (1, 2)
