"""Configs: text form, typed overrides, the experiment registry."""

import dataclasses
import json

import pytest

from nt_jax import registry
from nt_jax.config import ConfigError, Experiment, ModelConfig, from_dict, from_json, to_json
from nt_jax.errors import InputError
from nt_jax.overrides import apply_overrides, known_flags, table

BASE = Experiment(name="base")


def test_text_form_round_trips():
    assert from_json(Experiment, to_json(BASE)) == BASE
    changed = dataclasses.replace(BASE, model=ModelConfig(key_size=64, rope_base=1.0))
    assert from_json(Experiment, to_json(changed)) == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"layers": 3}}, "config.model: unknown field 'layers'"),
        ({"model": {"num_layers": "3"}}, "config.model.num_layers: '3'"),
        ({"model": {"num_layers": True}}, "config.model.num_layers: True"),
        ({"optim": {"name": "sgd"}}, "config.optim.name: 'sgd'"),
    ],
)
def test_a_wrong_text_is_refused(change, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        from_dict(Experiment, {**json.loads(to_json(BASE)), **change})


def test_a_text_from_before_a_field_existed_has_its_default():
    values = json.loads(to_json(BASE))
    assert values["model"].pop("rotary_angles") == "float32"
    assert values["tokenizer"].pop("letters") == "any"
    assert from_dict(Experiment, values) == BASE


def test_compatibility_settings_are_overrides_and_reach_the_tokenizer():
    arguments = ["--model.rotary-angles", "compute_dtype", "--tokenizer.letters", "upper_acgtn"]
    changed = apply_overrides(BASE, arguments)
    assert changed.model.rotary_angles == "compute_dtype"
    assert changed.tokenizer.make().letters == "upper_acgtn"
    assert from_json(Experiment, to_json(changed)) == changed
    with pytest.raises(InputError, match=r"'bfloat16' is not one of float32\|compute_dtype"):
        apply_overrides(BASE, ["--model.rotary-angles", "bfloat16"])


def test_overrides_are_typed():
    changed = apply_overrides(
        BASE,
        [
            "--optim.peak-lr",
            "3e-4",
            "--model.key-size=64",
            "--optim.name",
            "adamw",
            "--mesh.data",
            "-1",
            "--model.ffn-gated",
            "False",
            "--train.global_batch",
            "8",
        ],
    )
    assert changed.optim.peak_lr == 3e-4
    assert changed.optim.name == "adamw"
    assert changed.model.key_size == 64
    assert changed.mesh.data == -1
    assert changed.model.ffn_gated is False
    assert changed.train.global_batch == 8
    assert changed.data == BASE.data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.peak-lr", "abc"], "--optim.peak-lr: 'abc' is not a number"),
        (["--train.steps", "1.5"], "--train.steps: '1.5' is not an integer"),
        (["--optim.peaklr", "1"], "did you mean '--optim.peak-lr'"),
        (["--optim.name", "sgd"], "'sgd' is not one of adam|adamw".replace("|", r"\|")),
        (["--train.steps"], "--train.steps: a value is missing"),
        (["stray"], "unknown option 'stray'"),
    ],
)
def test_a_bad_override_is_one_clear_line(arguments, message, capfd):
    with pytest.raises(InputError, match=message) as caught:
        apply_overrides(BASE, arguments)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_table_names_every_override():
    text = table(BASE)
    assert all(flag in text for flag in known_flags(BASE))


def test_an_experiment_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from nt_jax.config import Experiment\n\n"
        "def config():\n    return Experiment(name='mine')\n"
    )
    assert registry.find_experiment(str(path)).name == "mine"
    path.write_text("config = 3\n")
    with pytest.raises(InputError, match="config"):
        registry.find_experiment(str(path))
    with pytest.raises(InputError, match="did you mean 'nt_v2_nano'"):
        registry.find_experiment("nt_v2_nan")
