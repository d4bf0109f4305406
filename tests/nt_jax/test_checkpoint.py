"""Checkpoints: bitwise round trip, flipped bytes, partial directories, other meshes."""

import collections
import contextlib
import json
import pathlib
import random
import resource
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nt_jax import optim, sharding
from nt_jax.checkpoint import (
    Checkpoints,
    SaveFailedError,
    _verify,
    committed_steps,
    find_step,
    parse_checkpoint,
    restore_params,
    save_params,
)
from nt_jax.checksums import CorruptedError, checksums, host_checksums
from nt_jax.config import CheckpointConfig, Experiment, MeshConfig, ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.model.factory import build_model
from nt_jax.step import init_state
from nt_jax.tokenizers import KmerTokenizer

EXPERIMENT = Experiment(
    name="tiny",
    model=ModelConfig(num_layers=2, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=32),
    tokenizer=TokenizerConfig(k=3),
)


def abstract_and_state(mesh_config: MeshConfig | None = None, devices: int = 1):
    mesh = sharding.make_mesh(mesh_config or MeshConfig(data=1), jax.devices()[:devices])
    model = build_model(EXPERIMENT.model, KmerTokenizer(k=3, vocabulary="v2"))
    rule = optim.optimizer(EXPERIMENT.optim, 100)

    def fresh():
        return init_state(model, rule, 0)

    shapes = jax.eval_shape(fresh)
    placed = sharding.state_sharding(shapes, mesh)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
    )
    return abstract, jax.jit(fresh, out_shardings=placed)()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """A workdir with checkpoints 1, 2 and 3 that differ."""
    workdir = tmp_path_factory.mktemp("workdir")
    _, state = abstract_and_state()
    saver = Checkpoints(workdir, CheckpointConfig(keep=3))
    for step in (1, 2, 3):
        params = jax.tree.map(lambda x, s=step: x + s, state.params)
        saver.save(state._replace(step=jnp.int32(step), params=params), EXPERIMENT, {})
        saver.wait()
    saver.close()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path) -> pathlib.Path:
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def restored(workdir, mesh=None, devices=1):
    abstract, state = abstract_and_state(mesh, devices)
    saver = Checkpoints(workdir, CheckpointConfig(keep=3))
    try:
        return saver.restore(abstract), state
    finally:
        saver.close()


@pytest.mark.parametrize(("mesh", "devices"), [((1, 1, 1), 1), ((2, 2, 2), 8), ((1, 8, 1), 8)])
def test_restores_the_same_bits_on_any_mesh(workdir, mesh, devices):
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    found, state = restored(workdir, config, devices)
    assert int(found.step) == 3
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 3), found.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, found.opt_state, state.opt_state)
    spec = found.params["nt/block/ffn/fc1"]["w"].sharding.spec
    assert tuple(spec) == (None, "fsdp" if 16 % mesh[1] == 0 else None, "tensor")


def data_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files that hold array data: the larger ones of the key-value store."""
    return [path for path in folder.rglob("d/*") if path.is_file() and path.stat().st_size > 500]


def test_a_flipped_byte_falls_back_to_the_next_older_step_and_says_so(workdir, caplog):
    step = workdir / "checkpoints" / "3" / "params"
    for path in data_files(step):
        content = bytearray(path.read_bytes())
        content[random.Random(1).randrange(len(content) // 3, len(content) * 2 // 3)] ^= 0x10
        path.write_bytes(content)
    found, _ = restored(workdir)
    assert int(found.step) == 2
    assert "checkpoints/3 is damaged" in caplog.text
    with pytest.raises(InputError, match=r"checkpoints/3: damaged checkpoint"):
        restore_params(workdir)
    assert restore_params(workdir, 2)[1] == 2


def test_host_arrays_are_saved_and_restored(workdir, tmp_path):
    params, _, experiment = restore_params(workdir, 3)
    params = jax.tree.map(np.asarray, params)
    save_params(tmp_path / "new", params, experiment, {"tokens": 0})
    again, step, stored = restore_params(tmp_path / "new")
    assert (step, stored) == (0, experiment)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    for path in data_files(tmp_path / "new" / "checkpoints" / "0" / "params"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match="damaged checkpoint"):
        restore_params(tmp_path / "new")


def test_every_single_bit_counts():
    tree = {"a": jnp.arange(12, dtype=jnp.float32).reshape(3, 4), "b": jnp.array([True, False])}
    sums = checksums(tree)
    _verify(tree, sums, "here")
    for row in range(3):
        for column in range(4):
            for bit in (0, 13, 31):
                bits = np.asarray(tree["a"]).view(np.uint32).copy()
                bits[row, column] ^= np.uint32(1 << bit)
                changed = {**tree, "a": jnp.asarray(bits.view(np.float32))}
                with pytest.raises(CorruptedError, match="array a differs"):
                    _verify(changed, sums, "here")
    swapped = {**tree, "a": tree["a"][::-1]}
    assert checksums(swapped)["a"] != sums["a"]


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.uint8, np.bool_]
)
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (2, 5, 4)])
def test_host_and_device_agree_on_checksums(dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    tree = {"a": array, "b": np.asfortranarray(np.broadcast_to(array, (3, *shape)))}
    on_device = checksums(jax.tree.map(jnp.asarray, tree))
    assert host_checksums(tree) == host_checksums(tree, chunk=8) == on_device


def test_partial_and_empty_steps_are_never_read(workdir):
    saves = workdir / "checkpoints"
    (saves / "9").mkdir()
    shutil.copytree(saves / "3", saves / "8")
    (saves / "8" / "_CHECKPOINT_METADATA").unlink()
    shutil.copytree(saves / "3", saves / "7")
    shutil.rmtree(saves / "7" / "rest")
    (saves / "10.orbax-checkpoint-tmp-0").mkdir()
    (saves / "mine").mkdir()
    assert committed_steps(saves) == [1, 2, 3]
    assert find_step(workdir) == 3
    found, _ = restored(workdir)
    assert int(found.step) == 3
    assert {entry.name for entry in saves.iterdir() if entry.is_dir()} == {"1", "2", "3", "mine"}


def test_a_damaged_step_is_moved_aside_and_written_anew(workdir):
    """Its bytes may still be worth a look: nothing that was once committed is deleted."""
    abstract, state = abstract_and_state()
    for attempt in ("3.damaged", "3.damaged1"):
        damaged = data_files(workdir / "checkpoints" / "3" / "params")[0]
        damaged.write_bytes(damaged.read_bytes()[:-9])
        size = damaged.stat().st_size
        saver = Checkpoints(workdir, CheckpointConfig())
        assert int(saver.restore(abstract).step) == 2
        saver.drop_after(2)
        assert committed_steps(workdir / "checkpoints") == [1, 2]
        saver.save(state._replace(step=jnp.int32(3)), EXPERIMENT, {})
        saver.close()
        kept = data_files(workdir / "checkpoints" / attempt / "params")
        assert size in {path.stat().st_size for path in kept}
        assert int(restored(workdir)[0].step) == 3


@contextlib.contextmanager
def no_room(bytes_left=300):
    """The system refuses to let any file grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def at(state, step):
    return state._replace(step=jnp.int32(step))


def test_a_save_that_fails_is_reported_and_the_next_one_is_made(workdir, caplog):
    abstract, state = abstract_and_state()
    saver = Checkpoints(workdir, CheckpointConfig(keep=5))
    saver.restore(abstract)
    with no_room():
        saver.save(at(state, 4), EXPERIMENT, {})
        saver.wait()
    assert "a checkpoint could not be saved: " in caplog.text
    assert committed_steps(workdir / "checkpoints") == [1, 2, 3]
    saver.save(at(state, 5), EXPERIMENT, {})
    saver.save(at(state, 6), EXPERIMENT, {})
    saver.close()
    assert committed_steps(workdir / "checkpoints") == [1, 2, 3, 5, 6]
    assert int(restored(workdir)[0].step) == 6


def test_a_disk_without_room_is_named_before_anything_is_written(workdir, caplog, monkeypatch):
    _, state = abstract_and_state()
    saver = Checkpoints(workdir, CheckpointConfig(keep=5))
    full = collections.namedtuple("Usage", "total used free")(10**9, 10**9, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: full)
        saver.save(at(state, 4), EXPERIMENT, {})
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert f"1,000 bytes are free, {needed:,} are needed; make room" in caplog.text
    assert [record.name for record in caplog.records].count("nt_jax.checkpoint") == 1
    saver.commit(at(state, 4), EXPERIMENT, {})
    saver.close()
    assert committed_steps(workdir / "checkpoints") == [1, 2, 3, 4]


def test_the_last_state_is_saved_again_until_it_is_on_disk(workdir, caplog, monkeypatch):
    _, state = abstract_and_state()
    saver = Checkpoints(workdir, CheckpointConfig(keep=5))
    with no_room():
        saver.save(at(state, 4), EXPERIMENT, {})
        saver.wait()
    saver.commit(at(state, 4), EXPERIMENT, {})
    assert committed_steps(workdir / "checkpoints") == [1, 2, 3, 4]
    monkeypatch.setattr("nt_jax.checkpoint._PAUSES", (0, 0))
    with no_room(), pytest.raises(SaveFailedError, match=r"5: cannot be written .* goes on from"):
        saver.commit(at(state, 5), EXPERIMENT, {})
    assert caplog.text.count("could not be saved") == 3
    saver.close()
    assert committed_steps(workdir / "checkpoints") == [1, 2, 3, 4]


def test_all_damaged_is_an_error_not_a_fresh_start(workdir):
    for path in data_files(workdir / "checkpoints"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="all 3 checkpoints are damaged"):
        restored(workdir)


def test_retention_keeps_the_newest_and_the_milestones(tmp_path):
    _, state = abstract_and_state()
    saver = Checkpoints(tmp_path, CheckpointConfig(keep=2, keep_every=4))
    for step in range(1, 8):
        saver.save(state._replace(step=jnp.int32(step)), EXPERIMENT, {})
    saver.close()
    assert set(committed_steps(tmp_path / "checkpoints")) == {4, 6, 7}


def test_names_of_checkpoints(workdir):
    assert parse_checkpoint("run@20") == (pathlib.Path("run"), 20)
    assert parse_checkpoint("a@b/run") == (pathlib.Path("a@b/run"), None)
    with pytest.raises(InputError, match=r"@5: no such checkpoint; there are \[1, 2, 3\]"):
        find_step(workdir, 5)
    with pytest.raises(InputError, match="no committed checkpoint"):
        find_step(workdir / "checkpoints")


def damaged(content: bytes, how: str, rng: random.Random) -> bytes:
    if how == "flip":
        place, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    return content[: rng.randrange(len(content))]


@pytest.mark.parametrize("seed", [0, 1])
def test_damage_to_any_file_gives_the_older_step_or_the_very_same_state(saved, tmp_path, seed):
    """Every file of a checkpoint in turn, one flipped byte or a cut at a random place."""
    rng = random.Random(seed)
    abstract, _ = abstract_and_state()
    last = saved / "checkpoints" / "3"
    files = sorted(path for path in last.rglob("*") if path.is_file())
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    saver = Checkpoints(run, CheckpointConfig(keep=3))
    whole = saver.restore(abstract)
    outcomes = collections.Counter()
    for path in files:
        how = rng.choice(("flip", "flip", "cut"))
        victim = run / path.relative_to(saved)
        victim.write_bytes(damaged(path.read_bytes(), how, rng))
        found = saver.restore(abstract)
        outcomes[int(found.step)] += 1
        if int(found.step) == 3:
            jax.tree.map(np.testing.assert_array_equal, found, whole)
        else:
            assert int(found.step) == 2, path
        victim.write_bytes(path.read_bytes())
    saver.close()
    assert outcomes[2] > 5, outcomes
    assert outcomes[3] > 5, outcomes


def test_a_flipped_byte_in_the_experiment_makes_no_other_model(workdir):
    """Two heads or four have the same shapes: nothing but its digest tells."""
    meta = workdir / "checkpoints" / "3" / "meta" / "metadata"
    text = meta.read_text()
    assert text.count('"num_heads": 2') == 1
    meta.write_text(text.replace('"num_heads": 2', '"num_heads": 4'))
    assert int(restored(workdir)[0].step) == 2
    with pytest.raises(InputError, match=r"damaged checkpoint .*meta differs"):
        restore_params(workdir)


def test_checkpoints_of_before_the_digest_are_read(workdir):
    meta = workdir / "checkpoints" / "3" / "meta" / "metadata"
    said = json.loads(meta.read_text())
    del said["digest"]
    meta.write_text(json.dumps(said))
    assert int(restored(workdir)[0].step) == 3
    assert restore_params(workdir)[1] == 3
