"""Slices by the cloud's names."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax import hardware
from nt_jax.errors import InputError
from nt_jax.plan import topology


@pytest.mark.parametrize(
    ("name", "chips", "shape", "devices", "hosts"),
    [
        ("v5e-16", 16, (4, 4), 16, 4),
        ("v5e-256", 256, (16, 16), 256, 64),
        ("v6e-64", 64, (8, 8), 64, 16),
        ("v6e-8", 8, (2, 4), 8, 2),
        ("v4-8", 4, (2, 2, 1), 4, 1),
        ("v4-64", 32, (2, 4, 4), 32, 8),
        ("v5p-64", 32, (2, 4, 4), 32, 8),
        ("v5p-128", 64, (4, 4, 4), 64, 16),
        ("v5p-512", 256, (4, 8, 8), 256, 64),
        ("v5p-1536", 768, (8, 8, 12), 768, 192),
        ("v3-32", 16, (4, 4), 32, 4),
        ("tpu7x-16", 16, (2, 2, 4), 32, 4),
        ("v5p-64x2", 32, (2, 4, 4), 64, 16),
        ("h200-8", 8, (8,), 8, 1),
        ("a100-80g-128", 128, (128,), 128, 16),
    ],
)
def test_names_count_what_the_cloud_counts(name, chips, shape, devices, hosts):
    found = topology.parse(name)
    assert (found.chips, found.shape, found.devices, found.hosts) == (chips, shape, devices, hosts)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5e-17", "'v5e-16'"),
        ("v4-7", "'v4-8'"),
        ("v5p-60", "'v5p-64'"),
        ("v6e-512", "'v6e-256'"),
        ("v9-8", "GENERATION-NUMBER"),
        ("a100-8", "'a100-80g-8'"),
        ("v5e", "'v5e-16'"),
        ("v5e-16x0", "v5e-16"),
        ("h200-0", "at least one"),
    ],
)
def test_an_unknown_slice_is_refused_with_the_nearest(name, said):
    with pytest.raises(InputError, match=said):
        topology.parse(name)


@given(st.sampled_from(sorted(hardware.CHIPS)), st.integers(1, 20_000), st.integers(1, 4))
def test_whatever_is_accepted_has_the_shape_of_its_chips(generation, number, slices):
    try:
        found = topology.parse(f"{generation}-{number}x{slices}")
    except InputError:
        return
    assert math.prod(found.shape) == found.chips
    assert found.devices == found.chips * found.chip.devices * slices
    assert found.hosts * found.chip.host >= found.chips * slices
    assert list(found.shape) == sorted(found.shape) or found.chips < 64
    if generation in ("v2", "v3", "v4", "v5p"):
        assert number == 2 * found.chips


def test_v4_chips_are_one_device_each():
    assert topology.parse("v4-64").description()["chip_config_name"] == "megacore"


def test_slices_reach_libtpu():
    assert topology.parse("v5p-64x2").description() == {
        "platform": "tpu",
        "topology_name": "v5p:2x4x4",
        "num_slices": 2,
    }
