"""The tidy table: what is written is read back, in both forms, and anything else is refused."""

import dataclasses
import json
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.masked import METRICS, write_result
from nt_jax.evaluation.results import SCHEMA, Row, difference_name, read_rows, write_rows

ROW = Row(checkpoint="run", step=5, task="H3", method="logistic", metric="mcc", value=0.5)
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
rows = st.builds(
    Row,
    checkpoint=st.text(),
    step=st.integers(0, 2**40),
    tokens=st.integers(-1, 2**50),
    task=st.text(),
    layer=st.integers(0, 100),
    method=st.text(),
    control=st.booleans(),
    fold=st.integers(-1, 100),
    metric=st.text(),
    value=numbers,
    low=numbers,
    high=numbers,
)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@given(table=st.lists(rows, max_size=4))
def test_rows_come_back_and_what_is_not_finite_is_null(ending, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / f"results.{ending}"
    write_rows(path, table)

    def clean(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    expected = [
        Row(**{name: clean(value) for name, value in dataclasses.asdict(row).items()})
        for row in table
    ]
    assert read_rows(path) == expected


def test_the_columns_are_those_of_the_schema(tmp_path):
    write_rows(tmp_path / "results.parquet", [ROW])
    assert pq.read_schema(tmp_path / "results.parquet").equals(SCHEMA)
    assert [field.name for field in dataclasses.fields(Row)] == SCHEMA.names


def test_a_difference_is_named_after_its_metric_and_its_control():
    assert difference_name("mcc", "random init") == "mcc_minus_random_init"
    assert difference_name("mask_loss", "unigram") == "mask_loss_minus_unigram"


RESULT = {
    "checkpoint": "run", "step": 5, "tokens": 640, "data": "data/yeast", "split": "validation",
    "sequence_length": 24, "windows": 9, "loss": 4.0, "perplexity": 55.0, "accuracy": 0.1,
    "mask_loss": 4.5, "mask_perplexity": 90.0, "mask_accuracy": 0.05, "mask_bits_per_base": 1.9,
    "unigram_mask_loss": 4.6, "unigram_bits_per_base": 1.95, "mask_difference": -0.1,
    "mask_difference_low": -0.2, "mask_difference_high": float("nan"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_a_masked_evaluation_is_written_as_rows(tmp_path, name):
    write_result(tmp_path / name, RESULT)
    found = {row.metric: row for row in read_rows(tmp_path / name)}
    assert {
        (row.checkpoint, row.step, row.tokens, row.task, row.method) for row in found.values()
    } == {("run", 5, 640, "yeast: validation", "masked tokens")}
    assert {metric: row.value for metric, row in found.items()} == {
        **{metric: RESULT[metric] for metric in METRICS}, "mask_loss_minus_unigram": -0.1,
    }  # fmt: skip
    assert {metric for metric, row in found.items() if row.control} == {
        "unigram_mask_loss", "unigram_bits_per_base",
    }  # fmt: skip
    difference = found["mask_loss_minus_unigram"]
    assert (difference.low, difference.high) == (-0.2, None)


@pytest.mark.parametrize("name", ["x.json", "x"])
def test_a_masked_evaluation_is_json_under_any_other_name(tmp_path, name):
    write_result(tmp_path / name, RESULT | {"mask_difference_high": 0.0})
    assert json.loads((tmp_path / name).read_text()) == RESULT | {"mask_difference_high": 0.0}


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"results.csv: results are written as .parquet or .jsonl"):
        write_rows(tmp_path / "results.csv", [ROW])
    for name, content in [("a.jsonl", "{]"), ("b.jsonl", '{"x": 1}\n'), ("c.parquet", "no")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name}: not a table of results"):
            read_rows(tmp_path / name)
