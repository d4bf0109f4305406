"""A small program in the place of `pretrain`: files for checkpoints, the same exit codes.

`small_pretrain.py WORKDIR SCRIPT...`: attempt k of process i does what word k of SCRIPT says, the
last word for ever: `ok`, `CODE` (all exit with it), `CODE@I` (process I does, the rest hang),
`kill@I`, `until-term` (saves on SIGTERM, 75), `deaf` (ignores SIGTERM), `saved+WORD` (commits a
checkpoint first). Process i of attempt k appends its pid and environment to WORKDIR/log-i, and
does nothing before all processes have: one that is ended before it has would count wrongly.
"""

import json
import os
import pathlib
import signal
import sys
import time


def commit(workdir: pathlib.Path) -> None:
    saves = workdir / "checkpoints"
    step = max((int(path.name) for path in saves.glob("*")), default=0) + 10
    for item in ("params", "rest", "meta"):
        (saves / str(step) / item).mkdir(parents=True)
    (saves / str(step) / "_CHECKPOINT_METADATA").touch()


def attempts(log: pathlib.Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def main() -> int:
    workdir, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
    workdir.mkdir(parents=True, exist_ok=True)
    index = int(os.environ.get("NT_JAX_PROCESS_ID", "0"))
    terminated = []
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.append(number))
    log = workdir / f"log-{index}"
    attempt = attempts(log)
    names = ("NT_JAX_COORDINATOR", "NT_JAX_PROCESS_COUNT", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")
    seen = {name: os.environ.get(name) for name in names}
    with log.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **seen}) + "\n")
    print(f"process {index} attempt {attempt}", file=sys.stderr, flush=True)
    others = [workdir / f"log-{i}" for i in range(int(seen["NT_JAX_PROCESS_COUNT"] or 1))]
    end = time.monotonic() + 20
    while min(map(attempts, others)) <= attempt and time.monotonic() < end:
        time.sleep(0.01)
    word = words[min(attempt, len(words) - 1)]
    if word.startswith("saved+"):
        if index == 0:
            commit(workdir)
        word = word.removeprefix("saved+")
    what, at, which = word.partition("@")
    if at and int(which) != index:
        what = "deaf"
    if what == "ok":
        (workdir / "DONE").touch()
        return 0
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "2":
        print("nt-jax: no such data", file=sys.stderr, flush=True)
    if what.isdecimal():
        return int(what)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if terminated and what == "until-term":
            if index == 0:
                commit(workdir)
            return 75
        time.sleep(0.02)
    return 99


if __name__ == "__main__":
    sys.exit(main())
