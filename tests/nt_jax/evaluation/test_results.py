"""The tidy table: what is written is read back, in both forms, and anything else is refused."""

import dataclasses
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.results import SCHEMA, Row, read_rows, write_rows

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


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"results.csv: results are written as .parquet or .jsonl"):
        write_rows(tmp_path / "results.csv", [ROW])
    for name, content in [("a.jsonl", "{]"), ("b.jsonl", '{"x": 1}\n'), ("c.parquet", "no")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name}: not a table of results"):
            read_rows(tmp_path / name)
