"""`nt-jax data verify`: tables, JSON and page agree, and leaks end it with 1."""

import json
import pathlib

import pytest

from data_pipelines.builders import build
from data_pipelines.sources import Source, fasta_sources
from nt_jax.cli import main
from tests.data_pipelines.planted import mutated, simulated
from tests.data_pipelines.test_builders import write_fasta
from tests.nt_jax.report.test_page import Page

RECIPE = "window=600,stride=550,jitter=10,tokens=90"


@pytest.fixture
def task(tmp_path) -> pathlib.Path:
    """A labelled set: two test sequences of three are in contig a, one of them with changes."""
    folder = tmp_path / "promoters"
    folder.mkdir()
    a = simulated(60_000)
    test = [a[1_000:1_300], mutated(a[5_000:5_300], 0.98), simulated(300, 8)]
    train = [simulated(300, seed) for seed in range(10, 14)]
    for name, sequences in (("train", train), ("test", test)):
        lines = [f"{own.decode()},{nth % 2}" for nth, own in enumerate(sequences)]
        (folder / f"{name}.csv").write_text("\n".join(["sequence,label", *lines]) + "\n")
    return folder


def dataset(tmp_path, leak: bytes = b"", about: dict | None = None) -> pathlib.Path:
    """Contig a is train, b validation; the sources have a group where `about` has one."""
    path = write_fasta(tmp_path / "g.fa", a=simulated(60_000), b=leak + simulated(20_000, 1))
    (source,) = fasta_sources([path])
    named = Source("g<1>", source.files, source.read, about=about or {})
    out = tmp_path / "out"
    return build([named], out, recipe=RECIPE, kind="simulated", validation=["b"]).path


def verified(capfd, *arguments: object) -> tuple[int, str]:
    code = main(["data", "verify", *map(str, arguments)])
    printed = capfd.readouterr()
    assert printed.err == ""
    return code, printed.out


def test_tables_json_and_page_say_the_same(tmp_path, task, capfd):
    about = {"group": "fungi", "species": "S. simulated"}
    path, page = dataset(tmp_path, about=about), tmp_path / "page.html"
    code, text = verified(capfd, path, "--task", task, "--html", page)
    assert code == 0
    assert text.endswith("no problem found\n")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    assert "|       1 |        46 |   80K |      2.3B |" in rows["fungi"]
    assert "|       0 |       667 |     0 |     17.1B |" in rows["bacteria"]
    assert "promoters, test: most on g<1> a 2" in text

    code, result = verified(capfd, path, "--task", task, "--json")
    report = json.loads(result)
    assert code == 0
    assert [(t["split"], t["exact"], t["near"], t["looked_up"]) for t in report["tasks"]] == [
        ("train", 0, 0, 4),
        ("test", 1, 2, 3),
    ]
    assert report["groups"]["fungi"]["published_species"] == 46
    assert report["sources"][0]["soft_masked"] == 0
    assert report["near"]["validation/train"]["near"] == 0

    read = Page(page.read_text())
    assert all(target.startswith("#") for target in read.loaded)
    assert set(read.used) <= set(read.ids)
    assert all(read.ids.count(used) == 1 for used in read.used)
    assert "g<1>" in read.text
    assert "No problem found." in read.text
    assert "simulated" in read.text
    assert read.tags.count("svg") == 2 + len(report["near"]) + 1
    assert {path.name for path in tmp_path.iterdir()} >= {"out", "page.html"}


def test_leaks_end_it_with_1(tmp_path, capfd):
    page = tmp_path / "page.html"
    path = dataset(tmp_path, mutated(simulated(60_000)[20_100:26_100], 0.98))
    code, text = verified(capfd, path, "--html", page)
    assert code == 1
    assert "The worst near-duplicates" in text
    assert "problems:" in text
    assert "at least 95% identical to one place of train" in text
    assert "at least 95% identical to one place of train" in Page(page.read_text()).text


def test_many_sources_are_shown_by_group(tmp_path, capfd):
    sources = []
    for number in range(45):
        path = write_fasta(tmp_path / f"g{number}.fa", a=simulated(2_000, number))
        (source,) = fasta_sources([path])
        group = "bacteria" if number % 3 else "fungi"
        about = {"group": group, "species": f"s{number}"}
        sources.append(Source(source.name, source.files, source.read, about=about))
    out = tmp_path / "out"
    path = build(sources, out, recipe=RECIPE, kind="simulated", seed=1).path
    code, text = verified(capfd, path)
    assert code == 0
    assert "| group " in text
    assert "g44" not in text


def test_an_unknown_task_is_refused_before_anything_is_read(tmp_path, capfd):
    path = dataset(tmp_path)
    assert main(["data", "verify", str(path), "--task", "gue/EMP/H33"]) == 2
    assert "did you mean 'gue/EMP/H3'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "repeats", "leaking"),
    [("plasmodium_falciparum_3D7_chr1-2", 0.1, False), ("drosophila_melanogaster_1pct", 0.5, True)],
)
def test_repeats_of_real_genomes(tmp_path, capfd, real_data, name, repeats, leaking):
    """The piece of Drosophila is half repeats: what blocks hold out of it is in train, really."""
    fasta = real_data / f"genomes/species/{name}.fa.gz"
    path = build([fasta], tmp_path / "out", recipe="window=2000,stride=1950,jitter=50").path
    code, text = verified(capfd, path, "--json")
    train = json.loads(text)["near"]["train/train"]
    assert train["near"] / train["looked_up"] == pytest.approx(repeats, abs=0.05)
    assert code == leaking
