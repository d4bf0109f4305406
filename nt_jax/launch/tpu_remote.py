"""What runs on the workers of a slice, as text for `gcloud ... ssh --command`.

`gcloud` runs a command again where the connection breaks (ten attempts), so each of these may run
twice. Training is therefore started apart from the connection, once an attempt, and what is
streamed is its log; whoever lost the connection, or comes later, joins it.
"""

import re
import shlex
from collections.abc import Sequence

_EVENT = re.compile(r"\[(?P<worker>[^]]*)\] nt-jax-(?P<what>start|exit) (?P<rest>.*)")
FINISHED_LINE = "[0] nt-jax-exit 0 -"
"""What a worker says at the end of a run that went well before its first checkpoint."""


def install(revision: str, setup: str = "") -> str:
    """Checks out `revision` of the bundle in the home folder, and installs it from the lock.

    The images carry Python 3.10, so uv brings a newer one where there is none. Only what training
    needs is installed: the lock is a constraint, but for libtpu, which it pins for `nt-jax plan`;
    jax[tpu] names the one that it was built for. `setup` is run before, for mounts.
    """
    return f"""{setup}
set -e
mkdir -p "$HOME/nt-jax/{revision}" && cd "$HOME/nt-jax/{revision}"
git init --quiet src
git -C src fetch --quiet "$HOME/nt-jax.bundle" HEAD
git -C src -c advice.detachedHead=false checkout --quiet --force {revision}
export PATH="$HOME/nt-jax/uv/bin:$PATH"
command -v uv > /dev/null || python3 -m pip install --quiet --target "$HOME/nt-jax/uv" uv
[ -x env/bin/python ] || uv venv --quiet --python '>=3.11,<3.13' env
grep -v '^libtpu==' src/requirements.lock > lock
uv pip install --quiet --python env/bin/python --constraint lock -e 'src[tpu]'
echo "[${{HOSTNAME##*-w-}}] installed $(git -C src rev-parse HEAD)"
"""


def train(revision: str, name: str, attempt: int, arguments: Sequence[str], workdir: str) -> str:
    """Starts `nt-jax ARGUMENTS` once for this attempt, and streams its log until it ends.

    The first attempt of a launcher joins a run of that name that is still there; a later one
    ends what is left of the one before. The last line is `[WORKER] nt-jax-exit CODE STEP [stopped]`
    with the newest committed step.
    """
    joins = "alive" if attempt == 1 else f'[ "$job" = "$name {attempt}" ]'
    return f"""
mkdir -p "$HOME/nt-jax/run" && cd "$HOME/nt-jax/run" || exit 1
worker=${{HOSTNAME##*-w-}}
name={shlex.quote(name)}
saves={shlex.quote(workdir)}/checkpoints
newest() {{ ls "$saves" 2>/dev/null | grep -xE '[0-9]+' | sort -n | tail -n 1; }}
alive() {{ [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; }}
job=$(cat job 2>/dev/null); lines=20
if alive && [ "${{job% *}}" != "$name" ]; then
  echo "[$worker] nt-jax: the slice still runs ${{job% *}}; nt-jax launch tpu-vm-stop ends it"
  echo "[$worker] nt-jax-exit 2 -"; exit 2
fi
if {joins}; then
  echo "$name {attempt}" > job
else
  if alive; then kill -KILL -- "-$(cat pid)"; while alive; do sleep 0.2; done; fi
  rm -f exit stopped log; : > log; lines=+1
  echo "$name {attempt}" > job
  setsid bash -c 'cd "$HOME/nt-jax/{revision}/src"; "$@" >> "$HOME/nt-jax/run/log" 2>&1 &
    echo $! > "$HOME/nt-jax/run/main"; wait $!; echo $? > "$HOME/nt-jax/run/exit"' \\
    nt-jax {shlex.join(["../env/bin/nt-jax", *arguments])} < /dev/null > /dev/null 2>&1 &
  echo $! > pid
fi
echo "[$worker] nt-jax-start $(newest)"
tail -n $lines -s 0.2 -F --pid="$(cat pid)" log 2>/dev/null | sed -u "s/^/[$worker] /"
code=$(cat exit 2>/dev/null || echo 137)
step=$(newest)
echo "[$worker] nt-jax-exit $code ${{step:--}}$([ -e stopped ] && echo ' stopped')"
exit "$code"
"""


STOP = """
cd "$HOME/nt-jax/run" 2>/dev/null || exit 0
if [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; then
  touch stopped; kill -TERM "$(cat main)"
  while kill -0 "$(cat pid)" 2>/dev/null; do sleep 1; done
fi
echo "[${HOSTNAME##*-w-}] $(cat job 2>/dev/null) ended with exit code $(cat exit 2>/dev/null)"
"""
"""Ends the run of this worker with SIGTERM, so that it saves; waits for that."""

STATUS = """
cd "$HOME/nt-jax/run" 2>/dev/null || { echo "[${HOSTNAME##*-w-}] nothing was run"; exit 0; }
if [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; then state=running
else state="ended with exit code $(cat exit 2>/dev/null || echo 137)"; fi
echo "[${HOSTNAME##*-w-}] $(cat job) $state; $(tail -n 1 log)"
"""
"""One line: which run and attempt, whether it runs, the last line of its log."""


class Workers:
    """Reads the stream of all workers: which have started, how they ended, the newest step."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.codes: dict[str, int] = {}
        self.step: int | None = None
        self.stopped = False

    def line(self, text: str) -> str | None:
        """Takes a line; returns what a person should see of it."""
        event = _EVENT.fullmatch(text)
        if not event:
            # Worker 0 shows the progress.
            return text.removeprefix("[0] ")
        fields = event["rest"].split()
        if event["what"] == "start":
            self.started.add(event["worker"])
            fields.insert(0, "")
        else:
            self.codes[event["worker"]] = int(fields[0])
            self.stopped |= "stopped" in fields
        if len(fields) > 1 and fields[1].isdecimal():
            self.step = max(self.step or 0, int(fields[1]))
        return None

    def all_ended(self) -> bool:
        """Whether every worker that has started said how it ended."""
        return bool(self.codes) and self.started <= set(self.codes)
