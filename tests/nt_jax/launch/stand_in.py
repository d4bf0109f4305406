"""Stand-ins of gcloud, sbatch, srun, scontrol, squeue, sacct and uv, and how a test installs them.

Each call is appended to FOLDER/calls.jsonl. What the k-th call of a verb does is word k of
FOLDER/VERB.plan (the last word for ever; without a file: the good case).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

NAMES = ("gcloud", "sbatch", "srun", "scontrol", "squeue", "sacct", "uv")


# --- For the tests ----------------------------------------------------------------------------


def put_on_path(folder: pathlib.Path, monkeypatch) -> pathlib.Path:
    """Puts all of them in front of PATH; returns the folder of their state."""
    (folder / "bin").mkdir(parents=True)
    for name in NAMES:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {folder} {name} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


def plan(folder: pathlib.Path, **words: str) -> None:
    """What the calls of a verb do, one after the other."""
    for verb, text in words.items():
        (folder / f"{verb}.plan").write_text("\n".join(text.split()))


def calls(folder: pathlib.Path, *names: str) -> list[list[str]]:
    """The commands as they came, of these programs or of all that a launcher calls itself."""
    names = names or ("gcloud", "sbatch")
    lines = (folder / "calls.jsonl").read_text().splitlines()
    return [call for call in map(json.loads, lines) if call[0] in names]


# --- The programs -----------------------------------------------------------------------------


def main(folder: pathlib.Path, name: str, arguments: list[str]) -> int:
    with (folder / "calls.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps([name, *arguments]) + "\n")
    return globals()[name](folder, arguments)


def word(folder: pathlib.Path, verb: str, default: str = "ok") -> str:
    path = folder / f"{verb}.plan"
    if not path.exists():
        return default
    first, *rest = path.read_text().split("\n")
    if rest:
        path.write_text("\n".join(rest))
    return first


def fail(text: str, code: int = 1) -> int:
    print(text, file=sys.stderr)
    return code


def gcloud(folder: pathlib.Path, arguments: list[str]) -> int:
    verb = arguments[3]
    state = folder / "slice"
    what = word(folder, verb)
    if verb == "create":
        if what == "quota":
            return fail("ERROR: (gcloud.compute.tpus) RESOURCE_EXHAUSTED: quota of TPUV5sLitepod")
        # States of the looks that follow; `what` may name them.
        state.write_text("WAITING_FOR_RESOURCES,ACTIVE" if what == "ok" else what)
        return 0
    if verb == "describe":
        if what == "denied":
            return fail("ERROR: (gcloud.auth) You do not currently have an active account")
        if not state.exists():
            return fail("ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource was not found")
        first, _, rest = state.read_text().partition(",")
        state.write_text(rest or first)
        failed = {"failedData": {"error": {"message": "no capacity"}}}
        print(json.dumps({"state": {"state": first, **(failed if first == "FAILED" else {})}}))
        return 0
    if verb == "delete":
        state.unlink()
        lose_workers(folder)
        return 0
    workers = [folder / f"worker-{index}" for index in range(2)]
    if verb == "scp":
        for home in workers:
            home.mkdir(exist_ok=True)
            shutil.copy(arguments[4], home / arguments[5].partition(":")[2])
        return 255 if what == "lost" else 0
    if what == "lost":
        return fail("ssh: connect to host port 22: Connection refused", 255)
    text = arguments[-1].removeprefix("--command=")
    shells = [
        subprocess.Popen(
            ["bash", "-c", text],
            env={**os.environ, "HOME": str(home), "HOSTNAME": f"t1v-n-1-w-{index}"},
            start_new_session=True,
        )
        for index, home in enumerate(workers)
    ]
    if what in ("preempted", "dropped"):
        until(lambda: any(map(has_checkpoint, (folder / "runs").glob("*"))))
        for shell in shells:
            # What follows the log goes with the connection; training is a session of its own.
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        if what == "preempted":
            lose_workers(folder)
            state.write_text("SUSPENDED")
        return 255
    return max(shell.wait() for shell in shells)


def lose_workers(folder: pathlib.Path) -> None:
    for home in folder.glob("worker-*"):
        pid = home / "nt-jax" / "run" / "pid"
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), signal.SIGKILL)
        shutil.rmtree(home)


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """One that is committed: while it is written its folder has another name."""
    found = workdir.glob("checkpoints/*/_CHECKPOINT_METADATA")
    return any(path.parent.name.isdigit() for path in found)


def until(condition) -> None:
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def uv(folder: pathlib.Path, arguments: list[str]) -> int:
    """Installs a script in the place of nt-jax: FOLDER/nt-jax, with what it is given."""
    if arguments[0] == "venv":
        (pathlib.Path(arguments[-1]) / "bin").mkdir(parents=True)
        (pathlib.Path(arguments[-1]) / "bin" / "python").symlink_to(sys.executable)
    else:
        shutil.copy(folder / "nt-jax", "env/bin/nt-jax")
    return 0


def sbatch(folder: pathlib.Path, arguments: list[str]) -> int:
    """Runs the script at once, again as long as it is requeued."""
    if word(folder, "sbatch") == "refuse":
        return fail("sbatch: error: invalid partition specified: gpu")
    job = str(41 + len(calls(folder, "sbatch")))
    script = pathlib.Path(arguments[-1])
    options = [line.split(maxsplit=1)[1] for line in script.read_text().splitlines()
               if line.startswith("#SBATCH ")]  # fmt: skip
    log = next(o for o in options if o.startswith("--output=")).partition("=")[2]
    for attempt in range(20):
        (folder / "requeued").unlink(missing_ok=True)
        with open(log.replace("%j", job), "a") as file:
            code = subprocess.run(
                ["bash", script], stdout=file, stderr=file, cwd="/",
                env={**os.environ, "SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(attempt)},
            ).returncode  # fmt: skip
        (folder / "exit").write_text(str(code))
        if not (folder / "requeued").exists():
            break
    print(f"{job};cluster")
    return 0


def srun(folder: pathlib.Path, arguments: list[str]) -> int:
    command = arguments[next(i for i, a in enumerate(arguments) if not a.startswith("--")) :]
    what = word(folder, "srun", "run")
    if what.isdecimal():
        return int(what)
    workdir = pathlib.Path(command[command.index("--workdir") + 1])
    if what == "saved":
        step = len(list(workdir.glob("checkpoints/*"))) + 1
        (workdir / "checkpoints" / str(step)).mkdir(parents=True)
        return 1
    process = subprocess.Popen(command)
    if what == "limit":
        until(lambda: has_checkpoint(workdir))
        process.send_signal(signal.SIGTERM)
    return process.wait()


def scontrol(folder: pathlib.Path, arguments: list[str]) -> int:
    if word(folder, "scontrol") == "refuse":
        return fail("slurm_requeue error: Requested operation not supported")
    (folder / "requeued").touch()
    return 0


def squeue(folder: pathlib.Path, arguments: list[str]) -> int:
    what = word(folder, "squeue", "RUNNING")
    if what == "gone":
        return 0
    print("42|RUNNING|1:02:03|node[1-2]" if "--me" in arguments else what)
    return 0


def sacct(folder: pathlib.Path, arguments: list[str]) -> int:
    what = word(folder, "sacct")
    if what == "ok":
        print("41|TIMEOUT|1:00:00|0:0\n42|COMPLETED|0:10:00|0:0")
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
