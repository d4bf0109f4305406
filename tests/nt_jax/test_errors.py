"""Suggestions for mistyped names."""

import pytest

from nt_jax.errors import nearest

NAMES = ("nt_v1_500m_1000g", "nt_v2_50m_multispecies", "nt_v2_500m_multispecies")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("nt_v2_50m", "; did you mean 'nt_v2_50m_multispecies'?"),
        ("nt_v2_500_multispecies", "; did you mean 'nt_v2_500m_multispecies'?"),
        ("bert", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_suggested(name, suggestion):
    assert nearest(name, NAMES) == suggestion
