"""Fetching: whatever the server and the machine do, only checked files have their names."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import json
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
from data_pipelines.assemblies import fetch, stored_path
from data_pipelines.builders import build
from data_pipelines.downloads import TransferError, part_of
from data_pipelines.manifest import CHECKSUM_LIST, Assembly, Manifest, read_manifest, write_manifest
from data_pipelines.mirrors import MIRROR, mirror_folders, mirrors
from nt_jax import cli
from nt_jax.errors import InputError

BODY = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
QUICK = {"pauses": (0.01, 0.01, 0.01), "timeout": 5.0}


class Server(http.server.ThreadingHTTPServer):
    """Files by path, with ranges; faults are taken from a list, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list = []
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.etags = True
        self.block_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, address):
        """A client that was killed is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Quiet."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        fault = server.faults.pop(0) if server.faults else None
        if callable(fault):
            fault, _ = None, fault(server)
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        current = self.headers.get("If-Range", etag) == etag
        start = 0
        if asked and server.ranges and current:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if fault == "cut":
            rest = rest[: len(rest) // 2]
        if fault == "lie":
            rest = bytes(reversed(rest))
        for at in range(0, len(rest), 10_000):
            self.wfile.write(rest[at : at + 10_000])
            time.sleep(server.block_seconds)
        if fault == "cut":
            self.close_connection = True
            self.connection.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def row(url: str, accession="GCF_1.1", body=BODY, **values) -> Assembly:
    values = {"checksum": f"sha256:{hashlib.sha256(body).hexdigest()}", "bytes": None} | values
    return Assembly(
        accession=accession,
        species="Escherichia coli",
        genus="Escherichia",
        url=url,
        **{"group": "bacteria", "split": "", "weight": 1.0, **values},
    )


def manifest(folder: pathlib.Path, *rows: Assembly) -> Manifest:
    write_manifest(folder / "m.tsv", rows)
    return read_manifest(folder / "m.tsv")


def get(folder: pathlib.Path, *rows: Assembly, mirrors=(), workers=4):
    return fetch(manifest(folder, *rows), folder / "out", mirrors=mirrors, workers=workers, **QUICK)


def files(folder: pathlib.Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


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


GENOMES = (
    ("chlamydia_trachomatis_L2b", "Chlamydia trachomatis", "bacteria", "train"),
    ("candidatus_portiera_aleyrodidarum", "Candidatus Portiera", "bacteria", "validation"),
    ("plasmodium_falciparum_3D7_chr1-2", "Plasmodium falciparum", "protozoa", "train"),
    ("phage_lambda_NC_001416", "Lambda", "viral", "test"),
)


def genomes(real_data: pathlib.Path, split: bool = True) -> list[Assembly]:
    made = []
    for name, species, group, own in GENOMES:
        path = real_data / "genomes" / "species" / f"{name}.fa.gz"
        assembly = row(str(path), name, path.read_bytes(), group=group, split=own if split else "")
        made.append(dataclasses.replace(assembly, species=species))
    return made


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


RECIPE = "window=6000,stride=6000,jitter=0"


def test_whole_assemblies_are_the_splits_with_any_number_of_workers(real_data, tmp_path):
    own = manifest(tmp_path, *genomes(real_data))
    one = build(assemblies.sources(own), tmp_path / "one", recipe=RECIPE)
    fetch(own, tmp_path / "fetched")
    fetched = assemblies.sources(own, tmp_path / "fetched")
    two = build(fetched, tmp_path / "two", recipe=RECIPE, workers=2, shard_windows=50)
    one_again = build(fetched, tmp_path / "again", recipe=RECIPE, shard_windows=50)
    assert contents(two.path) == contents(one_again.path)
    card = one.datacard
    assert card["splits"] == two.datacard["splits"]
    for source, (name, species, group, split) in zip(card["sources"], GENOMES, strict=True):
        assert (source["name"], source["species"], source["group"]) == (name, species, group)
        assert {s for s, count in source["windows"].items() if count} == {split}
    assert (card["validation"], card["test"]) == ([GENOMES[1][0]], [GENOMES[3][0]])
    assert (card["seed"], card["dropped"]["boundary_windows"]) == (None, 0)
    groups = card["groups"]
    assert {name: own["species"] for name, own in groups.items()} == {
        "bacteria": 2,
        "protozoa": 1,
        "viral": 1,
    }
    assert sum(own["bases"] for own in groups.values()) == sum(
        source["bases"] for source in card["sources"]
    )
    assert groups["viral"]["windows"] == {"train": 0, "validation": 0, "test": 8}


def test_without_splits_blocks_are_held_out_as_ever(real_data, tmp_path):
    own = manifest(tmp_path, *genomes(real_data, split=False)[:2])
    card = build(assemblies.sources(own), tmp_path / "out", recipe=RECIPE, seed=3).datacard
    assert card["seed"] == 3
    assert set(card["splits"]) == {"train", "validation"}
    assert "split" not in card["sources"][0]


def test_splits_that_contradict_each_other_are_refused(real_data, tmp_path):
    made = assemblies.sources(manifest(tmp_path, *genomes(real_data)))
    plain = real_data / "genomes" / "species" / "phage_phix174_microviridae_sft_set.fa.gz"
    with pytest.raises(InputError, match="has no split, but other sources have"):
        build([*made, plain], tmp_path / "out", recipe=RECIPE)
    with pytest.raises(InputError, match="have their splits already"):
        build(made, tmp_path / "out", recipe=RECIPE, validation=["x"])
    with pytest.raises(InputError, match="train: no window of 6000 bases is left of its 0 sources"):
        build(made[3:], tmp_path / "out", recipe=RECIPE)
    with pytest.raises(InputError, match=r"test: no window of 60000 bases is left of its 1 source"):
        build(made, tmp_path / "out", recipe="window=60000,stride=6000,jitter=0")


def test_missing_and_changed_files_stop_a_build(server, tmp_path):
    genome = gzip.compress(b">a\n" + b"ACGT" * 100)
    server.files["/g.fa"] = genome
    (tmp_path / "local.fa").write_bytes(genome)
    remote = row(f"{server.url}/g.fa", "remote", genome)
    own = manifest(tmp_path, remote, row("local.fa", "local", genome))
    with pytest.raises(InputError) as caught:
        assemblies.sources(own, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'm.tsv'}: 1 of 2 assemblies are not in {tmp_path / 'out'} (first: remote); "
        f"run `nt-jax data fetch {tmp_path / 'm.tsv'} --out {tmp_path / 'out'}` first"
    )
    with pytest.raises(InputError, match="and give --data-dir DIR"):
        assemblies.sources(own)
    fetch(own, tmp_path / "out", **QUICK)
    assert [s.about.get("url") for s in assemblies.sources(own, tmp_path / "out")] == [
        f"{server.url}/g.fa",
        None,
    ]
    stored_path(tmp_path / "out", remote).write_bytes(b">a\nACGT\n")
    with pytest.raises(InputError, match="expected sha256"):
        assemblies.sources(own, tmp_path / "out")


def command(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_commands_fetch_and_build(server, tmp_path, capfd, monkeypatch):
    letters = np.random.default_rng(2).choice(list("ACGT"), (3, 900))
    for name, own in zip("abc", letters, strict=True):
        server.files[f"/{name}.fa"] = f">chr\n{''.join(own)}\n".encode()
    rows = [
        row(f"{server.url}/{name}.fa", name, server.files[f"/{name}.fa"], split=split)
        for name, split in zip("abc", ("train", "validation", "test"), strict=True)
    ]
    path = manifest(tmp_path, *rows).path
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "a.fa").write_bytes(server.files["/a.fa"])
    monkeypatch.setenv(MIRROR, f"{tmp_path / 'none'},{mirror}")
    out, dataset = tmp_path / "out", tmp_path / "dataset"
    build_it = ["data", "build", "manifest", "--manifest", path, "--out", dataset]
    build_it += ["--recipe", "window=60,stride=60,jitter=0", "--data-dir", out]
    assert command(*build_it) == 2
    assert f"`nt-jax data fetch {path} --out {out}` first" in capfd.readouterr().err
    broken = server.files.pop("/c.fa")
    assert command("data", "fetch", path, "--out", out) == 2
    printed = capfd.readouterr()
    assert printed.err.splitlines() == [
        f"nt-jax: {server.url}/c.fa: the server answers 404 Not Found; correct the url"
    ]
    assert f"failed: {server.url}/c.fa" in printed.out
    assert "| bacteria |     3 | 1,812 |          1 |      1 |     0 |      1 |   sha256 2 |" in (
        printed.out
    )
    server.files["/c.fa"] = broken
    assert command("data", "fetch", path, "--out", out, "--json") == 0
    assert [own["how"] for own in json.loads(capfd.readouterr().out)] == [
        "there", "there", "downloaded",
    ]  # fmt: skip
    assert command(*build_it) == 0
    printed = capfd.readouterr()
    assert printed.out == f"{dataset}\n"
    assert "bacteria" in printed.err
    assert command("data", "verify", dataset) == 0


def test_a_server_that_stays_away_is_no_bad_input(server, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(assemblies, "fetch", functools.partial(fetch, pauses=()))
    server.faults = [503] * 20
    path = manifest(tmp_path, row(f"{server.url}/a.fa", "a"), row(f"{server.url}/b.fa", "b")).path
    assert command("data", "fetch", path, "--out", tmp_path / "out") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "2 of 2 files are not there; first: " in line
    assert "the server answers 503 Service Unavailable" in line
