"""Grids: names, budgets, and what is refused; the golden texts of the shipped studies."""

import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax import throughput
from nt_jax.config import DataConfig, Experiment, ModelConfig, OptimConfig, TrainConfig
from nt_jax.errors import InputError
from nt_jax.studies import declared
from nt_jax.studies.find import choose, find_study, names
from nt_jax.studies.grid import (
    Flops,
    Grid,
    LossOn,
    Probe,
    Study,
    StudyRun,
    Tokens,
    amount,
    expand,
    tokens_per_step,
)
from nt_jax.studies.quantities import quantities
from tests.nt_jax.test_golden import golden

SHIPPED = ("miniature", "nt_paper", "rates", "tokenizations")
UNITS = {"T": 10**12, "B": 10**9, "M": 10**6, "K": 10**3}


def tiny(width: int = 16, batch: int = 4, length: int = 32) -> Experiment:
    return Experiment(
        name="tiny",
        model=ModelConfig(num_layers=2, num_heads=2, embed_dim=width, ffn_dim=4 * width),
        data=DataConfig(sequence_length=length),
        optim=OptimConfig(warmup_steps=2),
        train=TrainConfig(global_batch=batch),
    )


def some(name: str = "a", **fields) -> StudyRun:
    return StudyRun(**{"name": name, "experiment": tiny(), "source": "yeast", **fields})


words = st.text("abcXYZ019_", min_size=1, max_size=6)
budgets = st.one_of(
    st.integers(1, 10**12).map(Tokens),
    st.floats(1e6, 1e24, allow_nan=False).map(Flops),
)
grids = st.builds(
    lambda sizes, sources, chosen, seeds: Grid(
        sizes={name: tiny(width) for name, width in sizes.items()},
        sources=sources, budgets=chosen, seeds=seeds,
    ),
    st.dictionaries(words, st.sampled_from([8, 16, 24]), min_size=1, max_size=3),
    st.lists(words, min_size=1, max_size=3, unique=True),
    st.lists(budgets, min_size=1, max_size=3, unique_by=lambda budget: budget.label),
    st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(grids)
def test_names_are_folders_and_no_two_are_equal(grid):
    runs = expand(grid)
    assert len(runs) == (
        len(grid.sizes) * len(grid.sources) * len(grid.budgets) * len(grid.seeds)
    )  # fmt: skip
    found = [run.name for run in runs]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) for name in found)
    assert all(run.experiment.name == run.name for run in runs)
    assert {run.tags["seed"] for run in runs} == {str(seed) for seed in grid.seeds}


@settings(deadline=None, max_examples=10)
@given(grids, words, st.integers(100, 199))
def test_a_grid_that_grows_renames_nothing(grid, source, seed):
    more = dataclasses.replace(
        grid, sources=[*grid.sources, f"{source}.new"], seeds=[*grid.seeds, seed],
        variants={"": (), "hot": ("--optim.peak-lr", "1e-2")},
    )  # fmt: skip
    before = {run.name: run for run in expand(grid)}
    after = {run.name: run for run in expand(more)}
    assert before.items() <= after.items()
    assert len(after) > len(before)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e8, 1e22), st.sampled_from([8, 16, 32]), st.integers(1, 64), st.integers(8, 512))
def test_a_flop_budget_is_met_to_half_a_step(flops, width, batch, length):
    experiment = tiny(width, batch, length)
    (run,) = expand(Grid(sizes={"a": experiment}, sources=["s"], budgets=[Flops(flops)]))
    one = throughput.train_flops_per_step(experiment)
    spent = quantities(run.experiment).flops
    # Beyond 2^53 steps' numbers are rounded themselves.
    nearly = one / 2 * (1 + 1e-9) + flops * 1e-15
    assert abs(spent - flops) <= nearly or (spent == one and flops < one)


@settings(deadline=None)
@given(st.integers(1, 10**13), st.integers(1, 64), st.integers(8, 512))
def test_a_token_budget_is_met_to_half_a_step(tokens, batch, length):
    experiment = tiny(16, batch, length)
    (run,) = expand(Grid(sizes={"a": experiment}, sources=["s"], budgets=[Tokens(tokens)]))
    one = batch * length
    read = quantities(run.experiment).tokens
    assert abs(read - tokens) <= one / 2 or (read == one and tokens < one)


@given(st.integers(0, 10**15))
def test_amounts_are_written_without_rounding(count):
    text = amount(count)
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1] in UNITS else (text, 1)
    whole, _, part = number.partition(".")
    assert int(whole + part) * unit == count * 10 ** len(part)


def test_amounts_people_write():
    assert [amount(n) for n in (2_000_000, 300 * 10**9, 10**12, 1_500, 2048, 999)] == [
        "2M", "300B", "1T", "1.5K", "2.048K", "999",
    ]  # fmt: skip


def test_larger_models_get_fewer_tokens_at_equal_flops():
    sizes = {str(width): tiny(width) for width in (16, 32, 64)}
    runs = expand(Grid(sizes=sizes, sources=["s"], budgets=[Flops(1e12)]))
    steps = [run.experiment.train.steps for run in runs]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 2 * steps[-1]
    assert [run.name for run in runs] == [
        "16-s-1e12FLOP-s0",
        "32-s-1e12FLOP-s0",
        "64-s-1e12FLOP-s0",
    ]
    assert runs[0].tags["tokens"] == amount(steps[0] * tokens_per_step(tiny()))


def test_seeds_variants_and_warm_up_reach_the_experiment():
    grid = Grid(
        sizes={"a": tiny()}, sources=["s"], budgets=[Tokens(128 * 200)], seeds=(3, 4),
        variants={"": (), "hot": ("--optim.peak-lr", "1e-2")}, warmup_share=0.1,
        held_out=({"variant": "hot", "seed": "4"},),
    )  # fmt: skip
    runs = expand(grid)
    assert [run.name for run in runs] == [
        "a-s-25.6K-s3", "a-s-25.6K-s4", "a-s-25.6K-hot-s3", "a-s-25.6K-hot-s4",
    ]  # fmt: skip
    assert [run.experiment.train.seed for run in runs] == [3, 4, 3, 4]
    assert [run.experiment.optim.peak_lr for run in runs] == [1e-4, 1e-4, 1e-2, 1e-2]
    assert {run.experiment.optim.warmup_steps for run in runs} == {20}
    assert [run.held_out for run in runs] == [False, False, False, True]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ((), "no runs"),
        ((some("a b"),), "no name of a folder"),
        ((some("../a"),), "no name of a folder"),
        ((some("a.log"),), "endings"),
        ((some("a"), some("A", experiment=tiny(8))), "share the folder 'A'"),
        ((some("a"), some("b", experiment=dataclasses.replace(tiny(), name="x"))), "same run"),
        (
            (some("a", data="x"), some("b", experiment=tiny(8), data="y")),
            "is x and, for b, y; two datasets need two names",
        ),
        ((some(source="a=b"),), "source 'a=b'"),
        ((some(tags={"size": "a\tb"}),), "tag 'size'"),
        ((some(tags={"a:b": "c"}),), "tag 'a:b'"),
        ((some(losses_on=(LossOn(source="x"), LossOn(source="x", windows=3))),), "loss on 'x'"),
        ((some(probes=(Probe(task="a/b"), Probe(task="a-b"))),), "probe 'a-b'"),
    ],
)
def test_what_a_study_refuses(runs, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Study(name="s", runs=runs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budgets": [Tokens(0)]}, "above 0"),
        ({"budgets": [Flops(-1.0)]}, "above 0"),
        ({"budgets": [Flops(float("nan"))]}, "above 0"),
        ({"variants": {"x": ("--optim.peek-lr", "1")}}, "--optim.peak-lr"),
        (
            {"variants": {"x": ("--train.steps", "3")}},
            r"variant 'x': the grid itself sets train.st",
        ),
        ({"variants": {"x": ("--train.seed", "3")}}, "train.seed"),
        (
            {"variants": {"x": ("--optim.warmup-steps", "3")}, "warmup_share": 0.1},
            "optim.warmup_steps",
        ),
        ({"held_out": [{"size": "b"}]}, r"held_out .*no run has these tags; there are .*'a'"),
        ({"held_out": [{"size": "a"}, {"size": "a", "tokens": "1K"}]}, "no run has these tags"),
    ],
)
def test_what_a_grid_refuses(fields, message):
    grid = Grid(**{"sizes": {"a": tiny()}, "sources": ["s"], "budgets": [Tokens(999)], **fields})
    with pytest.raises(InputError, match=message):
        expand(grid)


def test_budgets_of_one_label_are_refused():
    grid = Grid(sizes={"a": tiny()}, sources=["s"], budgets=[Flops(1.0000001e12), Flops(1e12)])
    with pytest.raises(InputError, match="share the folder"):
        Study(name="s", runs=expand(grid))


# --- Shipped ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_text_of_a_shipped_study(name):
    assert name in names()
    study = find_study(name)
    text = declared.to_text(study)
    assert study.name == name
    assert golden(f"studies/{name}.json", text) == text
    shown = json.loads(text)
    assert list(shown["runs"]) == [run.name for run in study.runs]


def test_the_text_holds_every_field():
    study = find_study("nt_paper")
    shown = json.loads(declared.to_text(study))
    for run in study.runs:
        own, plain = shown["runs"][run.name], declared.to_plain(run)
        fields = shown["shared"]["experiment"] | own.pop("experiment")
        assert fields == declared.flat(plain.pop("experiment"))
        assert {k: v for k, v in (shown["shared"] | own).items() if k != "experiment"} == plain


def test_the_grid_of_the_paper():
    """Sizes, data and tokens of FACTS."""
    study = find_study("nt_paper")
    published = {
        ("v1", "500M", "human_ref"): {50, 300}, ("v1", "500M", "1000g"): {50, 300},
        ("v1", "2.5B", "1000g"): {300}, ("v1", "2.5B", "multispecies"): {300},
        ("v2", "50M", "multispecies"): {300}, ("v2", "100M", "multispecies"): {300},
        ("v2", "250M", "multispecies"): {800}, ("v2", "500M", "multispecies"): {1000},
    }  # fmt: skip
    found: dict[tuple[str, ...], set[int]] = {}
    for run in study.runs:
        size = quantities(run.experiment)
        tokens = int(run.tags["tokens"].rstrip("BT")) * (1000 if "T" in run.tags["tokens"] else 1)
        assert size.tokens == pytest.approx(tokens * 1e9, rel=1e-3), run.name
        nominal = float(run.tags["size"][:-1]) * (1e9 if run.tags["size"].endswith("B") else 1e6)
        assert size.parameters == pytest.approx(nominal, rel=0.1), run.name
        key = tuple(run.tags[tag] for tag in ("generation", "size", "source"))
        found.setdefault(key, set()).add(tokens)
    assert found == published
    lengths = [run.tags["length"] for run in study.runs if "v2_500m" in run.name]
    assert lengths == ["2048", "1000"]
    assert all(len(run.probes) == 18 for run in study.runs)


def test_the_miniature_spans_sixteenfold_and_three_sources():
    study = find_study("miniature")
    sizes = {run.tags["size"]: quantities(run.experiment).parameters for run in study.runs}
    assert len(sizes) >= 4
    assert max(sizes.values()) >= 16 * min(sizes.values())
    assert len({run.source for run in study.runs}) == 3
    assert any(run.held_out for run in study.runs)


def test_parameters_in_blocks_and_bases():
    experiment = find_study("nt_paper").run("nt_v1_500m_human_ref").experiment
    size = quantities(experiment)
    # 24 layers: four projections and two norms of 1280, feed-forward of 5120, all with biases.
    layer = 4 * (1280 * 1280 + 1280) + 2 * 1280 * 5120 + 5120 + 1280 + 4 * 1280
    assert size.parameters == 485_698_825
    assert size.parameters_in_blocks == 24 * layer
    assert size.bases == 292_969 * 1024 * 999 * 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nt_papr", "did you mean 'nt_paper'"),
        ("/nowhere.py", "/nowhere.py: no such study file"),
    ],
)
def test_unknown_studies(name, message):
    with pytest.raises(InputError, match=message):
        find_study(name)


def test_files_that_are_no_study(tmp_path):
    path = tmp_path / "s.py"
    for text, message in (
        ("study = 3", "needs a function study()"),
        ("def study(): return 3", "needs a function study()"),
        ("import nothing_like_it", "cannot be imported"),
        ("def study(:", "cannot be imported"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(message)):
            find_study(str(path))


def test_runs_by_name():
    study = find_study("nt_paper")
    assert choose(study, []) == study.runs
    assert [run.name for run in choose(study, ["nt_v1_2b5_1000g"])] == ["nt_v1_2b5_1000g"]
    with pytest.raises(InputError, match="did you mean 'nt_v1_2b5_1000g'"):
        choose(study, ["nt_v1_2b5_1000"])
