"""Laws of a study: who is fitted, what is predicted before it is run, what the page says."""

import math

import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.studies import findings
from nt_jax.studies.families import (
    FILE,
    families,
    law_of,
    predictions,
    write_down,
    written_down,
    written_of,
)
from nt_jax.studies.laws import Law, PowerLaw
from nt_jax.studies.sweeps import AT_AN_END, carried, sweeps
from nt_jax.studies.table import COLUMNS, Table
from nt_jax.studies.tokenizations import best, tokenized
from tests.nt_jax.report.test_page import Page

LAW = Law(2.0, 40.0, 0.35, 300.0, 0.4)
SIZES, BUDGETS = (3e5, 7e5, 1.5e6, 4e6), (1e6, 2e6, 4e6)
LARGE = 9e6


def row(name, parameters, tokens, loss, **more):
    columns = dict.fromkeys(COLUMNS) | {
        "run": name, "state": "done", "held_out": "no", "source": "species",
        "tag:size": f"w{parameters:.0f}", "tag:tokens": f"{tokens:.0f}",
        "parameters": int(parameters), "tokens": int(tokens), "flops": 6 * parameters * tokens,
        "bases_per_token": 6, "bases": 6 * tokens, "sequence_length": 256, "mask_loss": loss,
        "masking": "0.15 0.8 0.1", "eval_windows": 64,
        "mask_nats_per_base": None if loss is None else loss / 6,
        "unigram_mask_nats_per_base": 1.39,
    }  # fmt: skip
    return columns | more


def study(measured=None, budgets=BUDGETS, **more):
    """A grid with a little scatter, and one larger run that is held out."""
    rng = np.random.default_rng(0)
    rows = [
        row(f"{n:g}-{d:g}", n, d, LAW.loss(n, d) * math.exp(1e-3 * rng.normal()), **more)
        for n in SIZES
        for d in budgets
    ]
    rows.append(row("large", LARGE, 4e6, measured, held_out="yes", **more))
    return table(rows)


def table(rows):
    return Table("test", tuple(rows[0]), tuple(rows))


def test_a_law_of_both_is_fitted_without_the_held_out_run():
    (family,) = families(study(measured=99.0))
    assert family.name == "species, 6-mers, 256 tokens a sequence"
    assert len(family.runs) == 12
    sample = law_of(family, 40)
    assert isinstance(sample.fit.law, Law)
    assert not sample.fit.on_bound
    one = predictions(family, sample)["large"]
    assert one["low"] < LAW.loss(LARGE, 4e6) < one["high"]
    assert one["value"] == pytest.approx(LAW.loss(LARGE, 4e6), rel=5e-3)
    assert one["low"] <= one["law_low"] <= one["value"] <= one["law_high"] <= one["high"]


def test_at_equal_tokens_it_is_a_power_law_of_the_size():
    (family,) = families(study(budgets=(4e6,)))
    sample = law_of(family, 20)
    assert isinstance(sample.fit.law, PowerLaw)
    one = predictions(family, sample)["large"]
    assert one["value"] == pytest.approx(LAW.loss(LARGE, 4e6), rel=2e-2)
    (other,) = families(study(budgets=(2e6,)))
    with pytest.raises(InputError, match="other budgets of tokens"):
        predictions(other, law_of(other, 20))


def test_runs_whose_losses_do_not_compare_are_apart():
    rows = [
        row("a", 1e6, 1e6, 5.0),
        row("b", 1e6, 1e6, 5.0, source="yeast"),
        row("c", 1e6, 1e6, 2.5, bases_per_token=3, sequence_length=511),
        row("d", 1e6, 1e6, 5.1, **{"tag:variant": "hot"}),
        row("e", 2e6, 1e6, None),
        row("f", 1e6, 1e6, 5.0, masking="0.3 0.8 0.1"),
        row("g", 1e6, 1e6, 5.0, eval_windows=128),
    ]
    found = families(table([one | {"tag:variant": one.get("tag:variant")} for one in rows]))
    assert [[run.name for run in family.runs] for family in found] == [
        ["a"], ["b"], ["c"], ["d"], ["f"], ["g"],
    ]  # fmt: skip
    assert found[0].open == ("e",)
    assert found[3].name.endswith(", hot")
    assert found[4].name.endswith(", masking 0.3 0.8 0.1")


def test_predictions_are_written_down_with_what_they_rest_on(tmp_path):
    assert written_down(tmp_path) is None
    (line,) = write_down(study(), tmp_path, replicates=20)
    assert line.startswith("large: predicted <mask> loss ")
    (entry,) = written_down(tmp_path)["families"]
    assert entry["law"]["form"] == "Law"
    assert len(entry["fitted_to"]) == 12
    assert entry["not_trained"] == []
    assert f"{entry['predictions']['large']['value']:.4f}" in line
    (line,) = write_down(table([row("a", 1e6, 1e6, 5.0), row("b", 2e6, 1e6, None, held_out="yes")]),
                         tmp_path)  # fmt: skip
    assert "nothing is predicted: 1 runs" in line
    assert "why" in written_down(tmp_path)["families"][0]
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match=r"prediction\.json: damaged"):
        written_down(tmp_path)


def test_what_was_written_before_a_run_began_stays_and_later_ones_get_their_own(tmp_path):
    write_down(study(), tmp_path, replicates=20)
    before = written_down(tmp_path)["families"]
    assert write_down(study(measured=3.0), tmp_path, {"large"}, 20) == []
    assert written_down(tmp_path)["families"] == before
    more = [*study(measured=3.0).rows, row("larger", 4 * LARGE, 4e6, None, held_out="yes")]
    (line,) = write_down(table(more), tmp_path, {"large"}, 20)
    assert line.startswith("larger: predicted")
    first, second = written_down(tmp_path)["families"]
    assert [first] == before
    assert list(second["predictions"]) == ["larger"]
    written = written_down(tmp_path)
    assert written_of("large", written)["fitted_to"] == first["fitted_to"]
    assert written_of("larger", written)["held_out"] == ["larger"]
    assert written_of("largest", written) is None
    text = findings.findings(
        table([*more, row("late", 8 * LARGE, 4e6, 2.9, held_out="yes")]), tmp_path, 20
    )
    assert "No prediction of late: none was written down before it began." in text
    assert text.count("<td>12 runs</td>") == 2


def test_the_page_has_law_prediction_and_measurement(tmp_path):
    write_down(study(), tmp_path, replicates=20)
    value = written_down(tmp_path)["families"][0]["predictions"]["large"]["value"]
    text = findings.findings(study(measured=value * 1.002), tmp_path, 20)
    assert f"<td>{value * 1.002:.4f}</td><td>+0.20 %</td><td>yes</td>" in text
    for name in ("alpha", "beta", "12 runs"):
        assert name in text
    made = {path.name for path in (tmp_path / "figures").iterdir()}
    assert made == {f"law-{what}.{kind}" for what in ("parameters", "tokens", "flops")
                    for kind in ("png", "svg")}  # fmt: skip
    assert (tmp_path / "figures/law-flops.svg").read_text().startswith("<?xml")
    assert all(target.startswith("#") for target in Page(text).loaded)
    # What was written down stays what it was; the law is that of all runs but the held-out ones.
    again = findings.findings(study(measured=value * 1.5), tmp_path, 20)
    assert "<td>+50.00 %</td><td>no</td>" in again


def test_without_enough_runs_the_page_says_why(tmp_path):
    rows = [row(f"{n:g}", n, 1e6, 5.0 - i) for i, n in enumerate(SIZES[:3])]
    text = findings.findings(table(rows), tmp_path)
    assert "No law: 3 runs: PowerLaw has 3 parameters, so it needs 4" in text
    assert (tmp_path / "figures" / "law-flops.png").exists()
    assert findings.findings(table([row("a", 1e6, 1e6, None)]), tmp_path) == ""


def test_sources_and_scores_are_drawn_where_there_are_any(tmp_path):
    rows = [
        row(f"{source}{seed}", 1e6, 1e6, 5.0 + seed / 9, source=source,
            **{"tag:seed": str(seed), "on:human:mask_loss": 4.0 + seed / 9,
               "bases_per_token": k, "probe:t:mcc": 0.5 + seed / 9, "probe:t:mcc:low": 0.4,
               "probe:t:mcc:high": 0.9})
        for source, k in (("human", 6), ("yeast", 6), ("species", 3))
        for seed in (0, 1)
    ]  # fmt: skip
    text = findings.findings(table(rows), tmp_path)
    made = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert made == {"sources-on-human.png", "score-t-mcc.png"}
    # Lengths of a token are compared where a study says what is the same for them.
    assert "Tokenizations" not in text


def tokens(name, k, loss, **tags):
    found = row(
        name, 1e6, 1e6, loss and loss * k, **{f"tag:{key}": tag for key, tag in tags.items()}
    )
    return {**found, "bases_per_token": k, "mask_nats_per_base": loss,
            "unigram_mask_nats_per_base": 1.4}  # fmt: skip


def test_the_better_rate_of_each_tokenization_counts(tmp_path):
    rows = [tokens("six-slow", 6, 1.39, equal="", rate="1e-4"),
            tokens("six-fast", 6, 1.38, equal="", rate="1e-3"),
            tokens("one-slow", 1, 1.36, equal="bases", rate="1e-4"),
            tokens("one-fast", 1, 1.37, equal="bases", rate="1e-3"),
            tokens("one-short", 1, 1.39, equal="FLOPs", rate="1e-3"),
            tokens("open", 1, None, equal="FLOPs", rate="1e-4")]  # fmt: skip
    found = tokenized(table(rows))
    assert [(one.equal, one.k, one.run) for one in best(found)] == [
        ("FLOPs", 6, "six-fast"), ("FLOPs", 1, "one-short"),
        ("bases", 6, "six-fast"), ("bases", 1, "one-slow"),
    ]  # fmt: skip
    assert sweeps(table(rows)) == []
    text = findings.findings(table(rows), tmp_path)
    assert text.count("<td>best</td>") == 4
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {"tokenizations.png"}
    assert tokenized(table(rows[:2])) == []


def rates(rule, size, losses):
    return [
        row(f"{rule}{size}{rate}", size, 1e6, loss, **{"tag:rate": f"{rate:g}", "tag:rule": rule})
        for rate, loss in losses.items()
    ]


def test_sweeps_find_the_best_rate_and_what_carrying_it_over_costs():
    def bowl(best):
        return {rate: 5 + math.log(rate / best) ** 2 for rate in (1e-3, 2e-3, 4e-3, 8e-3)}

    rows = [*rates("mup", 1e6, bowl(2.5e-3)), *rates("mup", 4e6, bowl(2.5e-3)),
            *rates("one", 1e6, bowl(2.5e-3)), *rates("one", 4e6, bowl(5e-4))]  # fmt: skip
    found = sweeps(table(rows))
    assert [(one.rule, one.parameters, one.best) for one in found] == [
        ("mup", 1e6, 2e-3), ("mup", 4e6, 2e-3), ("one", 1e6, 2e-3), ("one", 4e6, 1e-3),
    ]  # fmt: skip
    rate, place = found[0].minimum()
    assert rate == pytest.approx(2.5e-3)
    assert place == "inside"
    assert found[3].minimum() == (1e-3, AT_AN_END)
    costs = {(small.rule, large.parameters): lost for small, large, lost in carried(found)}
    assert costs[("mup", 4e6)] == 0
    assert costs[("one", 4e6)] == pytest.approx(math.log(4) ** 2 - math.log(2) ** 2)


def test_the_width_that_rules_start_from_is_run_once_for_all_of_them():
    rows = [*rates("", 4e6, {1e-3: 4.5, 2e-3: 4.0}), *rates("mup", 1e6, {1e-3: 5.0, 2e-3: 4.5}),
            *rates("one", 1e6, {1e-3: 4.9, 2e-3: 5.0})]  # fmt: skip
    found = sweeps(table(rows))
    assert [(one.rule, one.parameters, one.best) for one in found] == [
        ("mup", 1e6, 2e-3), ("mup", 4e6, 2e-3), ("one", 1e6, 1e-3), ("one", 4e6, 2e-3),
    ]  # fmt: skip
    assert {small.rule: lost for small, _, lost in carried(found)} == {"mup": 0.0, "one": 0.5}


def test_a_rate_without_all_its_losses_is_told_and_never_best(tmp_path):
    rows = [*rates("mup", 1e6, {1e-3: 5.0, 2e-3: 4.5}), *rates("mup", 1e6, {2e-3: None}),
            *rates("mup", 4e6, {1e-3: 4.5, 2e-3: None})]  # fmt: skip
    small, large = sweeps(table(rows))
    assert (small.losses, small.missing) == ({1e-3: 5.0}, {2e-3: 1})
    assert (large.losses, large.missing) == ({1e-3: 4.5}, {2e-3: 1})
    text = findings.findings(table(rows), tmp_path)
    assert text.count("<td>0.002</td></tr>") == 2
    rows = [*rates("mup", 1e6, {1e-3: 5.0, 2e-3: 4.5}), *rates("mup", 4e6, {1e-3: 4.5, 2e-3: None})]
    assert "no loss at that rate" in findings.findings(table(rows), tmp_path)
    rows = [row("a", 1e6, 1e6, 5.0, **{"tag:rate": "high"})]
    with pytest.raises(InputError, match="run a: the tag rate='high' is no learning rate"):
        sweeps(table(rows))


def test_sweeps_of_other_data_or_budgets_are_apart():
    rows = [
        one | {"source": source, "tokens": tokens}
        for source, tokens in (("species", 1e6), ("species", 4e6), ("yeast", 1e6))
        for one in rates("mup", 1e6, {1e-3: 5.0, 2e-3: 4.5})
    ]
    assert [one.where for one in sweeps(table(rows))] == [
        "species, 6-mers, 1M tokens", "species, 6-mers, 4M tokens", "yeast, 6-mers, 1M tokens",
    ]  # fmt: skip


def test_minima_at_equal_compute_need_no_law_and_no_complete_study(tmp_path):
    rows = [
        row(f"{level}-{n:g}", n, level / (6 * n), 5.0 + math.log(n / 3e6) ** 2,
            **{"tag:flops": f"{level:g}", "flops": level})
        for level, sizes in ((1e13, SIZES[:4]), (1e14, SIZES[:1]))
        for n in sizes
    ]  # fmt: skip
    text = findings.findings(table(rows), tmp_path, 20)
    assert "No law" in text
    assert "<td>1.00e+13</td><td>4</td><td>3M</td><td>inside</td>" in text
    assert "No minimum: 1e+14 FLOPs: runs of 1 sizes, a parabola needs 3" in text
    assert (tmp_path / "figures" / "law-isoflop.png").exists()


def test_sources_are_compared_at_equal_tokens_alone(tmp_path):
    rows = [
        row(f"{source}{tokens:g}", 1e6, tokens, 5.0, source=source,
            **{"on:human:mask_loss": 4.0, "tag:tokens": None})
        for source in ("human", "yeast")
        for tokens in (1e6, 2e6)
    ]  # fmt: skip
    findings.findings(table(rows), tmp_path)
    made = {path.name for path in (tmp_path / "figures").glob("sources*.png")}
    assert made == {"sources-on-human.png", "sources-on-human-1.png"}


def test_a_sweep_on_the_page(tmp_path):
    rows = [*rates("muP", 1e6, {1e-3: 5.0, 2e-3: 4.5, 4e-3: 5.0}),
            *rates("muP", 4e6, {1e-3: 4.5, 2e-3: 4.0, 4e-3: 5.0})]  # fmt: skip
    text = findings.findings(table(rows), tmp_path)
    assert text.count("<td>0.002</td>") == 3
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"rates.png", "rates.svg"}
