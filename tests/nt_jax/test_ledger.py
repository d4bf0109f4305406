"""The ledger: seconds by phase, over lives that end well and badly."""

import json
import pathlib
import time

import jax.numpy as jnp
import pytest

from nt_jax.ledger import FILE, PHASES, Ledger, read_lives, share, totals


def about(seconds: float, expected: float) -> bool:
    """A machine with other work sleeps longer than it was told."""
    return expected - 0.02 <= seconds < expected + 0.5


def spend(ledger: Ledger, phase: str, seconds: float) -> None:
    ledger.enter(phase)
    time.sleep(seconds)
    ledger.enter("start_up")


def train_row(step: int, seconds: float, ledger: Ledger) -> dict:
    return {"step": step, "seconds": seconds, "input_wait": 0.0, "goodput": ledger.summary()}


def write(folder: pathlib.Path, rows: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_second_goes_to_one_phase(tmp_path):
    began = time.time()
    ledger = Ledger(tmp_path)
    before = dict(ledger._seconds)
    spend(ledger, "save", 0.2)
    with ledger.within("restore"):
        time.sleep(0.1)
    ledger.step = 1
    ledger.save("finished")
    (life,) = read_lives(tmp_path)
    assert life["ending"] == "finished"
    assert life["began"] < began  # this process was started before the ledger
    assert about(life["seconds"]["save"], 0.2)
    assert about(life["seconds"]["restore"], 0.1)
    assert sum(life["seconds"].values()) == pytest.approx(life["ended"] - life["began"], abs=0.05)
    assert before.keys() == set(PHASES)


def test_the_loop_is_charged_for_compiling_waiting_and_stepping(tmp_path):
    ledger, result = Ledger(tmp_path), jnp.zeros(()).block_until_ready()

    def batches():
        for wait in (0.0, 0.0, 0.3):
            time.sleep(wait)
            yield wait

    for _ in ledger.feeding(batches()):
        time.sleep(0.15)
        ledger.dispatched(result)
    seconds = totals([{"seconds": ledger._seconds}])
    assert ledger.step == 3
    assert about(seconds["compile"], 0.15)
    assert about(seconds["input"], 0.3)
    assert about(seconds["step"], 0.3)


class Busy:
    """A result that the devices still work on."""

    def __init__(self, until: float):
        self.until = until

    def is_ready(self) -> bool:
        return time.perf_counter() >= self.until


def test_a_wait_behind_a_working_device_is_no_wait(tmp_path):
    ledger = Ledger(tmp_path)

    def batches():
        for wait in (0.0, 0.2, 0.0):
            time.sleep(wait)
            yield wait

    for _ in ledger.feeding(batches()):
        ledger.dispatched(Busy(time.perf_counter() + 100))
    assert ledger.input_seconds < 0.02
    assert about(ledger._seconds["step"], 0.2)


def test_a_killed_life_is_known_up_to_its_last_row_and_its_lost_steps_are_counted(tmp_path):
    first = Ledger(tmp_path)
    first.goes_on(0)
    spend(first, "step", 0.2)
    first.save()  # at a checkpoint of step 10
    rows = [train_row(10, 0.02, first)]
    spend(first, "step", 0.3)
    rows.append(train_row(20, 0.02, first))
    rows.append({"split": "validation", "step": 20})
    spend(first, "step", 0.1)
    rows.append(train_row(25, 0.02, first))
    write(tmp_path, rows)
    assert about(read_lives(tmp_path)[0]["seconds"]["step"], 0.2)
    second = Ledger(tmp_path)  # killed there; the newest checkpoint is that of step 10
    second.goes_on(10)
    second.save()
    killed, life = read_lives(tmp_path)
    assert (killed["ending"], killed["last_step"]) == ("killed", 25)
    assert about(killed["seconds"]["step"], 0.6)
    assert life["first_step"] == 10
    assert life["seconds"]["lost"] == pytest.approx(15 * 0.02)
    sums = totals([killed, life])
    assert about(sums["step"], 0.6 - 0.3)
    assert sums == pytest.approx(
        {key: value for key, value in second.summary().items() if key in PHASES}, abs=0.05
    )
    assert 0 < share(sums) < 1


def test_the_third_life_does_not_count_the_loss_of_the_second_again(tmp_path):
    first = Ledger(tmp_path)
    first.goes_on(0)
    spend(first, "step", 0.2)
    first.save()
    write(tmp_path, [train_row(10, 0.02, first)])
    second = Ledger(tmp_path)
    second.goes_on(5)
    write(tmp_path, [train_row(8, 0.02, second)])
    second.save()
    third = Ledger(tmp_path)
    third.goes_on(8)
    third.save()
    assert [life["seconds"]["lost"] for life in read_lives(tmp_path)] == pytest.approx([0, 0.1, 0])


def test_a_finished_run_that_is_started_again_does_not_count_as_idle(tmp_path):
    first = Ledger(tmp_path)
    first.goes_on(0)
    first.step = 7
    first.save("finished")
    again = Ledger(tmp_path)
    again.goes_on(7)
    again.save("finished")
    assert len(read_lives(tmp_path)) == 1


def test_a_damaged_ledger_is_no_reason_to_stop(tmp_path):
    (tmp_path / FILE).write_text("{")
    ledger = Ledger(tmp_path)
    ledger.save()
    assert len(read_lives(tmp_path)) == 1


def test_no_room_for_the_ledger_is_no_reason_to_stop(tmp_path):
    (tmp_path / f"{FILE}.tmp").mkdir()  # nothing can be written there
    Ledger(tmp_path).save()
    assert not (tmp_path / FILE).exists()
