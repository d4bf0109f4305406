"""A slice through its life: the remote texts are really run by bash; gcloud is a stand-in."""

import itertools
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from nt_jax import cli
from nt_jax.errors import InputError
from nt_jax.launch import revision, tpu_types
from nt_jax.launch.revision import Revision
from tests.nt_jax.launch import stand_in
from tests.nt_jax.runs import environment, make_dataset, make_experiment

SMALL = pathlib.Path(__file__).with_name("small_pretrain.py")
CHECKOUT = pathlib.Path(__file__).parents[3]


def git(folder: pathlib.Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: pathlib.Path) -> Revision:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return Revision(folder, git(folder, "rev-parse", "HEAD"))


@pytest.fixture
def cloud(tmp_path, monkeypatch) -> pathlib.Path:
    """Stand-ins, and a small repository in the place of this one; workers run SMALL."""
    folder = stand_in.put_on_path(tmp_path / "cloud", monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "repo" / "experiments").mkdir(parents=True)
    (tmp_path / "repo" / "requirements.lock").write_text("jax==0.10.2\n")
    made = commit(tmp_path / "repo")
    monkeypatch.setattr(revision, "this_revision", lambda: made)
    works(folder, "ok")
    yield folder
    stand_in.lose_workers(folder)


def works(folder: pathlib.Path, words: str) -> None:
    """What `nt-jax pretrain` does on worker 0; the others do the same."""
    text = f"""#!/bin/bash
NT_JAX_PROCESS_ID=${{HOSTNAME##*-w-}}
export NT_JAX_PROCESS_ID
echo "at $(git rev-parse HEAD): $*"
exec {sys.executable} -S {SMALL} "$4" {words}
"""
    (folder / "nt-jax").write_text(text)
    (folder / "nt-jax").chmod(0o755)


def launch(folder: pathlib.Path, *more: str) -> int:
    words = "launch tpu-vm nt_v2_nano --name dna --zone us-west4-a --project p --topology v5e-16"
    words += f" --workdir {folder}/runs/one --data /mnt/data --poll 0.05 --wait 1"
    return cli.main([*words.split(), *more])


def verbs(folder: pathlib.Path) -> list[str]:
    return [call[4] for call in stand_in.calls(folder)]


def test_what_gcloud_is_asked_for(cloud, capfd):
    assert launch(cloud, "--spot", "--create=--network=mine", "--optim.clip", "1.0") == 0
    calls = stand_in.calls(cloud)
    assert verbs(cloud) == ["describe", "create", "describe", "describe", "scp", "ssh", "ssh"]
    place = ["--zone=us-west4-a", "--project=p"]
    queued = ["gcloud", "compute", "tpus", "queued-resources"]
    assert calls[0] == [*queued, "describe", "dna", "--format=json", *place]
    assert calls[1] == [
        *queued, "create", "dna", "--node-id=dna", "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite", "--valid-until-duration=60s", "--spot",
        "--network=mine", "--quiet", *place,
    ]  # fmt: skip
    vm = ["gcloud", "compute", "tpus", "tpu-vm"]
    assert calls[4][:4] == vm
    assert calls[4][6:] == ["dna:nt-jax.bundle", "--worker=all", *place, "--quiet"]
    assert calls[5][:9] == [*vm, "ssh", "dna", "--worker=all", *place]
    err = capfd.readouterr().err
    assert "dna: WAITING_FOR_RESOURCES\ndna: ACTIVE\n" in err
    pretrain = f"pretrain nt_v2_nano --workdir {cloud}/runs/one --data /mnt/data --optim.clip 1.0"
    head = revision.this_revision().commit
    assert f"[1] installed {head}" in err
    assert f"\nat {head}: {pretrain}\n" in err
    assert f"\n[1] at {head}: {pretrain}\n" in err
    ((*_, lock, what),) = {tuple(c) for c in stand_in.calls(cloud, "uv") if c[1] == "pip"}
    assert (lock, what) == ("-e", "src[tpu]")


def test_a_dry_run_prints_what_a_real_one_does(cloud, capfd, tmp_path):
    assert launch(cloud, "--dry-run", "--delete") == 0
    shown = capfd.readouterr().out
    assert not (cloud / "calls.jsonl").exists()
    assert not (tmp_path / "home").exists()
    stand_in.plan(cloud, create="ACTIVE")
    assert launch(cloud, "--delete") == 0
    # The texts for the workers have several lines.
    words = shlex.split(shown)
    programs = [i for i, word in enumerate(words) if word in ("gcloud", "mkdir")]
    programs.append(len(words))
    printed = [words[a:b] for a, b in itertools.pairwise(programs)]
    # `git bundle` follows the mkdir on the line after it.
    made = next(command for command in printed if command[0] == "mkdir")
    bundle = revision.this_revision().bundle()
    assert made == [
        "mkdir", "-p", str(bundle.parent),
        "git", "-C", str(tmp_path / "repo"), "bundle", "create", str(bundle), "HEAD",
    ]  # fmt: skip
    assert [command for command in printed if command is not made] == stand_in.calls(cloud)
    assert bundle.exists()


def test_a_slice_that_is_there_is_used_and_stays(cloud):
    (cloud / "slice").write_text("ACTIVE")
    assert launch(cloud) == 0
    assert verbs(cloud) == ["describe", "scp", "ssh", "ssh"]


def test_it_is_given_back_when_asked_for(cloud):
    works(cloud, "1")
    assert launch(cloud, "--delete", "--max-restarts", "1") == 1
    assert verbs(cloud)[-1] == "delete"
    assert not (cloud / "slice").exists()


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"create": "quota"}, "RESOURCE_EXHAUSTED: quota"),
        ({"create": "WAITING_FOR_RESOURCES,FAILED"}, "FAILED no capacity"),
        ({"create": "PROVISIONING"}, "still PROVISIONING after 1 minutes"),
        ({"describe": "denied"}, "do not currently have an active account"),
        ({"scp": "lost"}, "cannot be installed on all workers"),
    ],
)
def test_what_the_cloud_refuses_is_one_line_and_exit_1(plans, message, cloud, capfd, monkeypatch):
    stand_in.plan(cloud, **plans)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert launch(cloud, "--poll", "12") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("nt-jax: ")
    assert message in last


def test_a_worker_that_does_not_answer_at_first(cloud, capfd):
    stand_in.plan(cloud, ssh="lost ok")
    assert launch(cloud) == 0
    assert verbs(cloud)[-5:] == ["scp", "ssh", "scp", "ssh", "ssh"]


def test_a_dead_slice_is_made_anew(cloud):
    (cloud / "slice").write_text("SUSPENDED")
    assert launch(cloud) == 0
    assert verbs(cloud)[:3] == ["describe", "delete", "create"]


def test_preempted_in_the_middle_and_resumed(cloud, capfd):
    works(cloud, "saved+deaf ok")
    stand_in.plan(cloud, ssh="ok preempted ok")
    assert launch(cloud) == 0
    once = ["describe", "create", "describe", "describe", "scp", "ssh", "ssh", "describe"]
    again = ["describe", "delete", "create", "describe", "describe", "scp", "ssh", "ssh"]
    assert verbs(cloud) == once + again
    assert "the slice is SUSPENDED; goes on" in capfd.readouterr().err
    assert (cloud / "runs" / "one" / "DONE").exists()


def test_saved_and_stopped_on_a_slice_that_stays_goes_on_there(cloud, capfd):
    works(cloud, "saved+75 1 ok")
    assert launch(cloud) == 0
    assert verbs(cloud)[-5:] == ["ssh", "describe", "ssh", "describe", "ssh"]
    err = capfd.readouterr().err
    assert "exit codes 75; goes on (newest checkpoint 10)" in err
    assert "exit codes 1; goes on (newest checkpoint 10)" in err


def ended_once_joined(cloud: pathlib.Path, connections: int) -> threading.Thread:
    """Ends the run (SIGTERM on both workers) once the last of so many ssh commands has joined."""
    runs = [cloud / f"worker-{index}" / "nt-jax" / "run" for index in (0, 1)]

    def joined() -> bool:
        # It writes the job's name again; the list of calls was written just before.
        began = (cloud / "calls.jsonl").stat().st_mtime_ns
        return (
            verbs(cloud).count("ssh") == connections
            and all((cloud / f"runs/one/log-{index}").exists() for index in (0, 1))
            and all((run / "job").stat().st_mtime_ns >= began for run in runs)
        )

    def watch() -> None:
        stand_in.until(lambda: (cloud / "calls.jsonl").exists() and joined())
        for run in runs:
            os.kill(int((run / "main").read_text()), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_lost_connection_joins_the_same_attempt(cloud, capfd):
    works(cloud, "saved+until-term ok")
    stand_in.plan(cloud, ssh="ok dropped ok")
    thread = ended_once_joined(cloud, 3)
    assert launch(cloud) == 0
    thread.join()
    told = [line for line in capfd.readouterr().err.splitlines() if "goes on" in line]
    assert "connection lost (gcloud: exit code 255)" in told[0]
    assert "exit codes 75" in told[1]
    # The one that was joined, and the one after it.
    assert len((cloud / "runs" / "one" / "log-0").read_text().splitlines()) == 2


def test_it_gives_up_without_a_new_checkpoint(cloud, capfd):
    works(cloud, "1")
    assert launch(cloud, "--max-restarts", "2") == 1
    assert verbs(cloud).count("ssh") == 1 + 3
    assert "gave up after 2 restarts without a new checkpoint" in capfd.readouterr().err


def test_bad_input_is_never_tried_again(cloud):
    works(cloud, "2 ok")
    assert launch(cloud) == 2
    assert verbs(cloud).count("ssh") == 1 + 1


def test_a_sweep_is_run_on_one_slice_and_told_in_a_table(cloud, capfd):
    assert launch(cloud, "--sweep", "train.seed=0,1") == 0
    assert verbs(cloud).count("create") == 1
    rows = [line.split()[:3] for line in capfd.readouterr().out.splitlines()[1:]]
    assert rows == [["train.seed=0", "done", "0"], ["train.seed=1", "done", "0"]]


def test_stopped_from_elsewhere_and_its_status(cloud, capfd):
    works(cloud, "until-term")
    words = ["dna", "--zone", "us-west4-a", "--project", "p"]
    assert cli.main(["launch", "tpu-vm-status", *words]) == 0
    assert "dna: there is none" in capfd.readouterr().out

    told = []

    def elsewhere() -> None:
        stand_in.until(lambda: all((cloud / "runs" / "one" / f"log-{i}").exists() for i in (0, 1)))
        time.sleep(0.3)
        for command in ("tpu-vm-status", "tpu-vm-stop"):
            done = subprocess.run(
                [sys.executable, "-m", "nt_jax.cli", "launch", command, *words],
                cwd=CHECKOUT, capture_output=True, text=True,
            )  # fmt: skip
            told.append((done.returncode, done.stdout, done.stderr))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert launch(cloud) == 75
    thread.join()
    assert "[1] one 1 running; process 1 attempt 0" in told[0][1], told
    assert "[1] one 1 ended with exit code 75" in told[1][1], told
    assert cli.main(["launch", "tpu-vm-stop", *words, "--delete"]) == 0
    assert "dna: ACTIVE, deleted" in capfd.readouterr().out
    assert not (cloud / "slice").exists()


def test_a_launcher_that_leaves_leaves_the_run_and_a_later_one_joins_it(cloud, capfd):
    works(cloud, "saved+until-term ok")
    (cloud / "slice").write_text("ACTIVE")

    def interrupt() -> None:
        stand_in.until(lambda: all((cloud / f"runs/one/log-{i}").exists() for i in (0, 1)))
        os.kill(os.getpid(), signal.SIGTERM)

    leaving = threading.Thread(target=interrupt)
    leaving.start()
    assert launch(cloud) == 130
    leaving.join()
    assert "what runs there goes on" in capfd.readouterr().err
    ending = ended_once_joined(cloud, 4)
    assert launch(cloud) == 0
    ending.join()
    assert len((cloud / "runs" / "one" / "log-0").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--topology", "v5e-12"], "v5e has 1, 4, 8, 16"),
        (["--topology", "v5f-16"], "unknown slice; did you mean 'v5"),
        (["--workdir", "runs"], "--workdir runs: a path as all workers see it"),
        (["--data", "gs://bucket"], "--data gs://bucket: a path as all workers see it"),
        (["--setup", "/nowhere"], "--setup /nowhere: no such file"),
        (["--optim.peak-lrr", "1"], "did you mean '--optim.peak-lr'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked_for(more, message, cloud, capfd):
    assert launch(cloud, *more) == 2
    assert message in capfd.readouterr().err
    assert not (cloud / "calls.jsonl").exists()


@pytest.fixture
def checkout(tmp_path) -> pathlib.Path:
    """The sources of this package as they are now, committed."""
    folder = tmp_path / "checkout"
    for name in ("nt_jax", "data_pipelines", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, folder / name, ignore=ignored)
    for name in ("requirements.lock", "setup.cfg", ".gitignore"):
        shutil.copy(CHECKOUT / name, folder)
    commit(folder)
    return folder


def test_only_a_clean_commit_is_launched(checkout, cloud, tmp_path):
    def refused(experiment: str = "nt_v2_nano") -> str:
        words = f"launch tpu-vm {experiment} --name n --zone z --topology v5e-8 --workdir /w"
        done = subprocess.run(
            [sys.executable, "-m", "nt_jax.cli", *words.split(), "--data", "/d"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count("\n") == 1
        return done.stderr

    mine = make_experiment(tmp_path)
    assert f"{mine}: not in the commit" in refused(str(mine))
    (checkout / "nt_jax" / "new.py").write_text("")
    line = refused()
    assert "1 files differ from the commit (the first: nt_jax/new.py)" in line
    assert "`git commit` or `git stash -u`" in line
    shutil.rmtree(checkout / ".git")
    assert "no git checkout" in refused()


@pytest.mark.slow
def test_a_real_run_is_preempted_and_resumed_at_the_same_revision(checkout, cloud, tmp_path):
    """Both workers train alone: what joins real ones is their TPU runtime."""
    make_experiment(checkout / "experiments")
    make_dataset(tmp_path)
    made = commit(checkout)
    source = "$HOME/nt-jax/" + made.commit + "/src"
    (cloud / "nt-jax").write_text(
        "#!/bin/bash\n[[ $HOSTNAME == *-w-0 ]] || exit 0\n"
        f'PYTHONPATH="{source}" exec {sys.executable} -m nt_jax.cli "$@"\n'
    )
    stand_in.plan(cloud, ssh="ok preempted ok")
    words = f"launch tpu-vm {checkout}/experiments/tiny.py --name dna --zone z --topology v5e-16"
    words += f" --workdir {cloud}/runs/one --data {tmp_path}/data --poll 0.1 --train.steps 60"
    done = subprocess.run(
        [sys.executable, "-m", "nt_jax.cli", *words.split()],
        cwd=tmp_path, env={**environment(), "PYTHONPATH": str(checkout)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the slice is SUSPENDED" in done.stderr
    assert "resumes at step" in done.stderr
    stored = json.loads((cloud / "runs" / "one" / "config.json").read_text())
    assert stored["git_revision"] == made.commit
    assert (cloud / "runs" / "one" / "DONE").exists()


def test_names_of_slices():
    assert tpu_types.accelerator("v5e-256") == ("v5litepod-256", "v2-alpha-tpuv5-lite")
    assert tpu_types.accelerator("v4-64") == ("v4-64", "tpu-ubuntu2204-base")
    assert tpu_types.accelerator("v5p-64") == ("v5p-64", "v2-alpha-tpuv5")
    assert tpu_types.accelerator("v6e-64") == ("v6e-64", "v2-alpha-tpuv6e")
    for name in ("v5p-12", "v6e-", "v6e-x", "v4", "tpu7x-64"):
        with pytest.raises(InputError, match="--topology"):
            tpu_types.accelerator(name)
