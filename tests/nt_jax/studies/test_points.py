import math
from typing import Any

import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.studies.points import column, read_runs

ROW = {"name": "a", "parameters": 1e6, "tokens": 2000, "flops": 1.2e10, "loss": 7.5}


def test_rows_become_runs_and_what_else_they_hold_tags() -> None:
    runs = read_runs([{**ROW, "seed": 3, "source": "human", "none": None}, {**ROW, "loss": "7"}])
    assert runs[0].tags == {"seed": 3, "source": "human"}
    np.testing.assert_array_equal(column(runs, "loss"), [7.5, 7.0])
    assert column(runs, "tokens").dtype == np.float64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": None}, "row 1: no loss"),
        ({"loss": "high"}, r"row 1 \(a\): could not convert"),
        ({"loss": math.nan}, "run a: loss is nan"),
        ({"parameters": 0}, "run a: parameters is 0"),
        ({"flops": -1.0}, "run a: flops is -1"),
    ],
)
def test_a_bad_row_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_runs([ROW, {**ROW, **changed}])
