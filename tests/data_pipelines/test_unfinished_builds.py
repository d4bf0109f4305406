"""Builds that were killed, found no room, or met another: nothing is lost, nothing looks done."""

import signal
import subprocess
import sys
import time

import pytest

from data_pipelines import builders, shards
from data_pipelines.datacard import read_datacard
from nt_jax.errors import InputError
from tests.data_pipelines.test_builders import (
    build_simulated,
    contents,
    genome,
    simulated,
    write_fasta,
)

__all__ = ["genome"]


class KilledError(BaseException):
    """Stands for the end of the process."""


def interrupt(monkeypatch, after):
    """Makes the build die when `after` units are written."""
    real, calls = shards._write_unit, []

    def dying(*arguments):
        if len(calls) == after:
            raise KilledError
        calls.append(None)
        return real(*arguments)

    monkeypatch.setattr(shards, "_write_unit", dying)


def test_an_interrupted_build_keeps_its_shards_and_looks_unfinished(genome, tmp_path, monkeypatch):
    whole = contents(build_simulated([genome], tmp_path / "whole").path)
    out, staging = tmp_path / "out", tmp_path / "out.incomplete"
    with monkeypatch.context() as patch:
        interrupt(patch, after=3)
        with pytest.raises(KilledError):
            build_simulated([genome], out)
    assert not out.exists()
    with pytest.raises(InputError, match="not complete; run the same"):
        read_datacard(out)
    with pytest.raises(InputError, match="unfinished build of other input"):
        build_simulated([genome], out, seed=1)
    written = {path: path.stat().st_mtime_ns for path in staging.glob("*array_record*")}
    assert len(written) >= 3
    (staging / "part-1-genome_windows-train").write_bytes(b"half a shard")
    victim = next(iter(written))
    victim.write_bytes(victim.read_bytes()[:100])  # a power cut may do this
    told = []
    build_simulated([genome], out, progress=lambda *news: told.append(news))
    assert (0, 0, "reading sequences") in told
    assert next(done for done, _, text in told if text == "writing shards") >= 2
    kept = {out / path.name: stamp for path, stamp in written.items() if path != victim}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(out) == whole
    assert not staging.exists()


SCRIPT = """
import sys
from data_pipelines.builders import build
if __name__ == "__main__":
    build([sys.argv[1]], sys.argv[2], recipe="window=60,stride=50,jitter=0", shard_windows=100,
          kind="simulated", workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_with_sigkill_ends_in_the_same_bytes(tmp_path, workers):
    path = write_fasta(tmp_path / "g.fa", a=simulated(400_000))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(path)]
    staging = tmp_path / "killed.incomplete"
    process = subprocess.Popen([*command, str(tmp_path / "killed"), str(workers)])
    deadline = time.monotonic() + 60
    while len(list(staging.glob("genome_windows-*"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert staging.is_dir(), "it was finished before it could be killed"
    assert not (tmp_path / "killed").exists()
    subprocess.run([*command, str(tmp_path / "killed"), "1"], check=True)
    subprocess.run([*command, str(tmp_path / "whole"), "1"], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not staging.exists()


def test_two_builds_of_one_folder_do_not_mix(genome, tmp_path):
    with (
        builders._claimed(tmp_path / "out.incomplete", "fingerprint"),
        pytest.raises(InputError, match="another build"),
    ):
        build_simulated([genome], tmp_path / "out")


LIMITED = """
import resource, sys
from data_pipelines.builders import build
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    build([sys.argv[1]], sys.argv[2], recipe="window=60,stride=10,jitter=0", kind="simulated",
          shard_windows=30_000, workers=int(sys.argv[4]))
"""


@pytest.mark.parametrize(("limit", "workers"), [(300, 1), (1_000_000, 2)])
def test_a_build_without_room_goes_on_when_there_is_some(tmp_path, workers, limit):
    """Of the files, the first limit does not hold the bases, the second not the first shard."""
    path = write_fasta(tmp_path / "g.fa", a=simulated(400_000))
    script = tmp_path / "script.py"
    script.write_text(LIMITED)
    out, staging = tmp_path / "out", tmp_path / "out.incomplete"
    command = [sys.executable, str(script), str(path)]
    refused = subprocess.run(
        [*command, str(out), str(limit), str(workers)], capture_output=True, text=True
    )
    assert "File too large" in refused.stderr
    assert "when that is mended, give the same command again" in refused.stderr
    assert not out.exists()
    assert not list(staging.glob("part-*"))
    assert (staging / "contigs-00000").is_dir() == (limit > 400_000)
    for folder in (out, tmp_path / "whole"):
        subprocess.run([*command, str(folder), str(2**30), "1"], check=True)
    assert contents(out) == contents(tmp_path / "whole")
