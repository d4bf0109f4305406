"""A small part of benchmarks/chaos.py: seeded disasters end with the undisturbed run's curve."""

import chaos
import disasters
import pytest


def test_disasters_are_drawn_from_the_seed_and_every_kind_comes():
    assert chaos.draw(3, disk=True) == chaos.draw(3, disk=True)
    drawn = [chaos.draw(seed, disk=True) for seed in range(36)]
    assert {config for config, _ in drawn} == set(chaos.CONFIGS)
    events = [event for _, listed in drawn for event in listed]
    assert {event.kind for event in events} == set(disasters.KINDS)
    assert {event.damage for event in events} == {*disasters.DAMAGE, ""}
    for seed in range(36):
        assert all(event.kind != "full disk" for event in chaos.draw(seed, disk=False)[1])


def test_a_difference_is_found(tmp_path):
    for name, loss in (("a", 1.0), ("b", 1.0000001)):
        (tmp_path / name).mkdir()
        text = f'{{"step": 1, "loss": {loss}, "seconds": {loss}}}\n'
        (tmp_path / name / "metrics.jsonl").write_text(text)
    outcome = chaos.compare(tmp_path / "a", tmp_path / "b")
    assert outcome.startswith("FAILED: 1 rows of 1, first difference [{'step': 1, 'loss': 1.0}]")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 6])
def test_disasters_end_with_the_undisturbed_curve(tmp_path, seed):
    chaos.prepare(tmp_path)
    result = chaos.play(tmp_path, seed, disk=False)
    assert result["outcome"] == "same", result
    assert result["lives"] >= 2, result
