"""From a manifest of assemblies to a dataset: splits, bad files, the commands."""

import dataclasses
import functools
import gzip
import json
import pathlib

import numpy as np
import pytest

from data_pipelines import assemblies
from data_pipelines.assemblies import fetch, stored_path
from data_pipelines.builders import build
from data_pipelines.manifest import Assembly
from data_pipelines.mirrors import MIRROR
from nt_jax import cli
from nt_jax.errors import InputError
from tests.data_pipelines.genome_server import QUICK, manifest, row

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
