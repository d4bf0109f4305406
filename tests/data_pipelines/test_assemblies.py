"""Fetching: whatever the server and the machine do, only checked files have their names."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import assemblies
from data_pipelines.assemblies import stored_path
from data_pipelines.downloads import TransferError, part_of
from data_pipelines.manifest import CHECKSUM_LIST
from data_pipelines.mirrors import MIRROR, mirror_folders, mirrors
from nt_jax.errors import InputError
from tests.data_pipelines.genome_server import BODY, Server, files, get, manifest, row


def test_many_files_are_fetched_and_checked(server, tmp_path):
    bodies = {f"/a/{i}.fa": os.urandom(5_000 + i) for i in range(12)}
    server.files.update(bodies)
    rows = [
        row(server.url + path, f"acc{i}", body) for i, (path, body) in enumerate(bodies.items())
    ]
    outcomes = get(tmp_path, *rows)
    assert [(o.assembly, o.how, o.checked) for o in outcomes] == [
        (own, "downloaded", "sha256") for own in rows
    ]
    assert [o.path.read_bytes() for o in outcomes] == list(bodies.values())
    assert files(tmp_path / "out") == sorted(f"acc{i}/{i}.fa" for i in range(12))
    server.requests.clear()
    assert {o.how for o in get(tmp_path, *rows)} == {"there"}
    assert server.requests == []


def test_cut_connections_go_on_where_they_ended(server, tmp_path):
    server.files["/g.fa"] = BODY
    server.faults = ["cut", "cut", 503, "cut"]
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    assert outcome.path.read_bytes() == BODY
    starts = [asked for _, asked in server.requests]
    assert starts == [None, *(f"bytes={n}-" for n in (150_000, 225_000, 225_000, 262_500))]
    assert files(tmp_path / "out") == ["GCF_1.1/g.fa"]


def test_any_number_of_cuts_is_survived_while_bytes_are_won(server, tmp_path):
    server.files["/g.fa"] = BODY
    server.faults = ["cut"] * 9
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    assert outcome.path.read_bytes() == BODY


def test_a_server_that_ignores_ranges_sends_it_all_again(server, tmp_path):
    server.files["/g.fa"] = BODY
    server.ranges = False
    server.faults = ["cut"]
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    assert outcome.path.read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("length", [300_000, 290_000, 10_000])
def test_a_file_that_changes_between_attempts_is_not_glued(server, tmp_path, etags, length):
    """Without an ETag a change of equal length is seen by the checksum alone."""
    new = np.random.default_rng(1).integers(0, 256, length, np.uint8).tobytes()
    server.etags = etags
    server.files["/g.fa"] = BODY
    server.faults = ["cut", lambda server: server.files.update({"/g.fa": new})]
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa", body=new))
    if etags or length != len(BODY):
        assert outcome.path.read_bytes() == new
    else:
        assert f"expected sha256:{hashlib.sha256(new).hexdigest()}" in str(outcome.error)
        assert files(tmp_path / "out") == []
        (outcome,) = get(tmp_path, row(f"{server.url}/g.fa", body=new))
        assert outcome.path.read_bytes() == new


CHANGES = st.sampled_from(["cut", "cut", 503, "change", "ranges", "no ranges"])


@settings(max_examples=30, deadline=None)
@given(st.lists(CHANGES, max_size=8), st.integers(0, 2**32))
def test_whatever_happens_a_file_is_one_version_as_a_whole(tmp_path_factory, events, seed):
    """No checksum and no size: the ETag alone keeps versions apart."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("fetch")
    versions = [rng.integers(0, 256, 40_000, np.uint8).tobytes()]

    def change(server):
        length = int(rng.choice([40_000, 40_000, 25_000, 60_000]))
        versions.append(rng.integers(0, 256, length, np.uint8).tobytes())
        server.files["/g.fa"] = versions[-1]

    actions = {
        "change": change,
        "ranges": lambda server: setattr(server, "ranges", True),
        "no ranges": lambda server: setattr(server, "ranges", False),
    }
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.files["/g.fa"] = versions[0]
        server.faults = [actions.get(event, event) for event in events]
        wanted = row(f"{server.url}/g.fa", checksum="")
        while (outcome := get(folder, wanted)[0]).error:
            assert isinstance(outcome.error, TransferError)
            assert not outcome.path.exists()
        assert outcome.path.read_bytes() in versions
        server.shutdown()


def test_attempts_are_bounded_and_the_same_command_finishes(server, tmp_path):
    server.files["/g.fa"] = BODY
    server.faults = ["cut", 500, 502, 503, 504]
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    assert isinstance(outcome.error, TransferError)
    assert "the server answers 503" in str(outcome.error)
    assert "(4 attempts)" in str(outcome.error)
    assert len(server.requests) == 4
    assert files(tmp_path / "out") == ["GCF_1.1/g.fa.part", "GCF_1.1/g.fa.part.json"]
    server.faults = []
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    assert (outcome.how, outcome.path.read_bytes()) == ("downloaded", BODY)
    assert server.requests[-1] == ("/g.fa", "bytes=150000-")


def test_a_missing_file_is_not_asked_for_again_and_stops_no_other(server, tmp_path):
    server.files["/g.fa"] = BODY
    none, there = get(tmp_path, row(f"{server.url}/no.fa", "a"), row(f"{server.url}/g.fa", "b"))
    assert isinstance(none.error, InputError)
    assert str(none.error) == (
        f"{server.url}/no.fa: the server answers 404 Not Found; correct the url"
    )
    assert there.error is None
    assert len(server.requests) == 2


def test_wrong_bytes_are_named_and_removed(server, tmp_path):
    server.files["/g.fa"] = BODY
    server.faults = ["lie"]
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa"))
    found = hashlib.sha256(BODY[::-1]).hexdigest()
    assert str(outcome.error) == (
        f"{server.url}/g.fa: expected {outcome.assembly.checksum}, found sha256:{found}"
    )
    assert files(tmp_path / "out") == []


def test_a_wrong_size_is_named(server, tmp_path):
    server.files["/g.fa"] = BODY
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa", checksum="", bytes=7))
    assert "expected 7 bytes, found 300,000" in str(outcome.error)
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa", checksum="", bytes=len(BODY)))
    assert outcome.checked == "size"
    (outcome,) = get(tmp_path, row(f"{server.url}/g.fa", "b", checksum=""))
    assert outcome.checked == "nothing"


def test_a_file_that_is_there_is_checked_again_and_never_overwritten(server, tmp_path):
    server.files["/g.fa"] = BODY
    wanted = row(f"{server.url}/g.fa")
    path = stored_path(tmp_path / "out", wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    (outcome,) = get(tmp_path, wanted)
    assert "found sha256:" in str(outcome.error)
    assert "remove it and run the same command again" in str(outcome.error)
    assert path.read_bytes() == b"mine"


def test_a_part_of_unknown_origin_is_not_continued(server, tmp_path):
    server.files["/g.fa"] = BODY
    wanted = row(f"{server.url}/g.fa")
    part = part_of(stored_path(tmp_path / "out", wanted))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    (outcome,) = get(tmp_path, wanted)
    assert outcome.path.read_bytes() == BODY
    assert server.requests == [("/g.fa", None)]


def test_the_list_of_checksums_beside_the_url_is_taken_and_kept(server, tmp_path):
    md5 = hashlib.md5(BODY).hexdigest()
    server.files["/d/g.fa"] = BODY
    server.files[f"/d/{CHECKSUM_LIST}"] = f"{'0' * 32}  ./other.fa\n{md5}  ./g.fa\n".encode()
    wanted = row(f"{server.url}/d/g.fa", checksum=CHECKSUM_LIST)
    (outcome,) = get(tmp_path, wanted)
    assert (outcome.how, outcome.checked) == ("downloaded", "md5")
    assert files(tmp_path / "out") == ["GCF_1.1/g.fa", f"GCF_1.1/{CHECKSUM_LIST}"]
    server.files.clear()
    assert get(tmp_path, wanted)[0].how == "there"
    outcome.path.write_bytes(b"changed")
    assert f"expected md5:{md5}" in str(get(tmp_path, wanted)[0].error)


def test_a_list_without_the_file_is_no_check(server, tmp_path):
    server.files["/d/g.fa"] = BODY
    server.files[f"/d/{CHECKSUM_LIST}"] = b"nonsense\n"
    (outcome,) = get(tmp_path, row(f"{server.url}/d/g.fa", checksum=CHECKSUM_LIST))
    assert f"/d/{CHECKSUM_LIST}: does not list g.fa" in str(outcome.error)
    del server.files[f"/d/{CHECKSUM_LIST}"]
    (outcome,) = get(tmp_path, row(f"{server.url}/d/g.fa", checksum=CHECKSUM_LIST))
    assert f"/d/{CHECKSUM_LIST}: the server answers 404" in str(outcome.error)
    assert files(tmp_path / "out") == []


def test_local_files_are_checked_and_linked(tmp_path):
    (tmp_path / "g.fa").write_bytes(BODY)
    wanted = row("g.fa")
    (outcome,) = get(tmp_path, wanted)
    assert outcome.how == "linked"
    assert outcome.path.is_symlink()
    assert outcome.path.read_bytes() == BODY
    assert get(tmp_path, wanted)[0].how == "there"
    (tmp_path / "g.fa").write_bytes(BODY[:-1])
    (outcome,) = get(tmp_path, wanted)
    assert f"{tmp_path / 'g.fa'}: expected sha256:" in str(outcome.error)
    assert files(tmp_path / "out") == []
    (tmp_path / "g.fa").unlink()
    assert "no such file" in str(get(tmp_path, wanted)[0].error)


@pytest.mark.parametrize("place", ["d/g.fa", "GCF_1.1/g.fa", "g.fa"])
def test_mirrors_are_asked_first(server, tmp_path, place):
    server.files["/d/g.fa"] = BODY
    server.files[f"/mirror/{place}"] = BODY
    folder = tmp_path / "a mirror"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_bytes(BODY)
    wanted = row(f"{server.url}/d/g.fa")
    nowhere = str(tmp_path / "nowhere")
    (outcome,) = get(tmp_path, wanted, mirrors=[nowhere, str(folder)])
    assert (outcome.how, outcome.origin) == ("linked", str(folder / place))
    assert server.requests == []
    outcome.path.unlink()
    (outcome,) = get(tmp_path, wanted, mirrors=[f"{server.url}/mirror/"])
    assert (outcome.how, outcome.origin) == ("downloaded", f"{server.url}/mirror/{place}")
    assert outcome.passed_over == ()


def test_a_mirror_with_other_bytes_is_passed_over_and_reported(server, tmp_path):
    server.files["/d/g.fa"] = BODY
    server.files["/mirror/g.fa"] = b"an older release"
    (tmp_path / "g.fa").write_bytes(b"older still")
    (outcome,) = get(
        tmp_path, row(f"{server.url}/d/g.fa"), mirrors=[str(tmp_path), f"{server.url}/mirror"]
    )
    assert outcome.origin == f"{server.url}/d/g.fa"
    assert [text.partition(": expected")[0] for text in outcome.passed_over] == [
        str(tmp_path / "g.fa"),
        f"{server.url}/mirror/g.fa",
    ]


def test_a_mirror_is_not_trusted_by_a_bare_name_that_nothing_checks(server, tmp_path):
    server.files["/d/g.fa"] = BODY
    (tmp_path / "g.fa").write_bytes(b"another genome")
    (outcome,) = get(tmp_path, row(f"{server.url}/d/g.fa", checksum=""), mirrors=[str(tmp_path)])
    assert outcome.how == "downloaded"


def test_the_environment_names_one_folder_or_several_places(tmp_path, monkeypatch):
    monkeypatch.delenv(MIRROR, raising=False)
    assert mirrors() == []
    monkeypatch.setenv(MIRROR, "/one folder")
    assert mirrors() == ["/one folder"]
    monkeypatch.setenv(MIRROR, "/one, https://host.example:80/a/ ,/three")
    assert mirrors() == ["/one", "https://host.example:80/a/", "/three"]
    assert mirror_folders() == [pathlib.Path("/one"), pathlib.Path("/three")]
    (tmp_path / "a,b").mkdir()
    monkeypatch.setenv(MIRROR, str(tmp_path / "a,b"))
    assert mirrors() == [str(tmp_path / "a,b")]


def test_a_proxy_of_the_environment_is_taken(server, tmp_path, monkeypatch):
    server.files["http://host.invalid/g.fa"] = BODY
    monkeypatch.setenv("http_proxy", server.url)
    (outcome,) = get(tmp_path, row("http://host.invalid/g.fa"))
    assert outcome.path.read_bytes() == BODY


def test_two_processes_do_not_fetch_into_one_folder(server, tmp_path):
    with (
        assemblies._claimed(tmp_path / "out"),
        pytest.raises(InputError, match="another process is fetching into it"),
    ):
        get(tmp_path, row(f"{server.url}/g.fa"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_fetch_that_is_ended_is_finished_by_the_same_command(server, tmp_path, number, code):
    server.files["/g.fa"] = BODY
    server.block_seconds = 0.02
    wanted = row(f"{server.url}/g.fa")
    manifest(tmp_path, wanted)
    command = [sys.executable, "-m", "nt_jax.cli", "data", "fetch", str(tmp_path / "m.tsv")]
    command += ["--out", str(tmp_path / "out")]
    path = stored_path(tmp_path / "out", wanted)
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        part_of(path).exists() and part_of(path).stat().st_size > 50_000
    ):
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait() == code
    assert not path.exists()
    assert 50_000 < part_of(path).stat().st_size < len(BODY)
    server.block_seconds = 0
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert path.read_bytes() == BODY
    assert server.requests[-1][1].startswith("bytes=")
    assert server.requests[-1][1] != "bytes=0-"
    assert "downloaded" in done.stdout
    assert files(tmp_path / "out") == ["GCF_1.1/g.fa"]
