"""Contestant: a plain jitted Haiku step, built as the published JAX model is.

One module a layer in a Python loop, dense attention with float32 softmax, logits at all positions,
the loss over the masked ones, Adam; nothing is donated, scanned or recomputed. Parameters are
float32, arithmetic is in the compute dtype, LayerNorms in float32 (Haiku's mixed precision).
Module names are the published ones without their `~`. B batch, T tokens, D model width, H heads,
K head size, V vocabulary.
"""

import json
import pathlib
import time
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import optax

from nt_jax.interchange.hf import read_hf
from peers import child

IGNORED = -100


class SelfAttention(hk.Module):
    """Multi-head attention over the real tokens."""

    def __init__(self, sizes: dict[str, Any], name: str):
        super().__init__(name=name)
        self.sizes = sizes

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, T, D], [B, 1, T, T] -> [B, T, D]."""
        heads, size = self.sizes["num_heads"], self.sizes["head_size"]
        he = hk.initializers.VarianceScaling(2.0, "fan_in", "uniform")

        def project(name: str) -> jax.Array:
            flat = hk.Linear(heads * size, w_init=he, b_init=he, name=name)(x)
            return flat.reshape(*x.shape[:-1], heads, size)

        query, key, value = project("query"), project("key"), project("value")
        if self.sizes["positions"] == "rotary":
            query, key = (rotate(part, self.sizes["rope_base"]) for part in (query, key))
        logits = jnp.einsum("bthd,bThd->bhtT", query, key) / np.sqrt(size).astype(x.dtype)
        logits = jnp.where(mask, logits.astype(jnp.float32), -1e30)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("bhtT,bThd->bthd", weights, value).reshape(*x.shape[:-1], heads * size)
        return hk.Linear(x.shape[-1], w_init=he, b_init=he, name="mha_output")(mixed)


def rotate(x: jax.Array, base: float) -> jax.Array:
    """Rotates the halves of every head [B, T, H, K] against each other, in float32."""
    size = x.shape[-1]
    frequencies = base ** -(np.arange(0, size, 2) / size)
    angles = np.arange(x.shape[1])[:, None] * frequencies
    cos = np.cos(angles).astype(np.float32)[:, None, :]
    sin = np.sin(angles).astype(np.float32)[:, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Layer(hk.Module):
    """One pre-LayerNorm block."""

    def __init__(self, sizes: dict[str, Any], name: str):
        super().__init__(name=name)
        self.sizes = sizes

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, T, D], [B, 1, T, T] -> [B, T, D]."""
        sizes = self.sizes
        x += SelfAttention(sizes, name="mha")(norm(sizes, "mha_layer_norm")(x), mask)
        gated, bias = sizes["ffn_gated"], sizes["ffn_bias"]
        hidden = norm(sizes, "final_layer_norm")(x)
        hidden = hk.Linear(sizes["ffn_dim"] * (1 + gated), with_bias=bias, name="fc1")(hidden)
        if gated:
            first, second = jnp.split(hidden, 2, axis=-1)
            hidden = jax.nn.swish(first) * second
        else:
            hidden = jax.nn.gelu(hidden, approximate=False)
        return x + hk.Linear(sizes["embed_dim"], with_bias=bias, name="fc2")(hidden)


class Head(hk.Module):
    """Masked-language-model head."""

    def __init__(self, sizes: dict[str, Any], name: str):
        super().__init__(name=name)
        self.sizes = sizes

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, D] -> (logits [B, T, V], output of the first LayerNorm)."""
        sizes = self.sizes
        embedding = norm(sizes, "emb_layer_norm_after")(x)
        x = hk.Linear(sizes["embed_dim"], name="lm_head_fc_1")(embedding)
        x = norm(sizes, "lm_head_layer_norm")(jax.nn.gelu(x, approximate=False))
        return hk.Linear(sizes["vocab_size"], name="lm_final_fc")(x), embedding


class Transformer(hk.Module):
    """The whole model."""

    def __init__(self, sizes: dict[str, Any], name: str = "esm_transformer"):
        super().__init__(name=name)
        self.sizes = sizes

    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T] -> (logits [B, T, V], embeddings of the last layer [B, T, D])."""
        sizes = self.sizes
        real = tokens != sizes["pad_id"]
        x = hk.Embed(sizes["vocab_size"], sizes["embed_dim"], name="embed")(tokens)
        if sizes["token_dropout"]:
            masks = tokens == sizes["mask_id"]
            observed = masks.sum(axis=1) / real.sum(axis=1)
            scale = (1 - sizes["token_dropout"]) / (1 - observed)
            x = jnp.where(masks[..., None], 0, x) * scale[:, None, None].astype(x.dtype)
        if sizes["positions"] == "learned":
            rows = sizes["max_positions"] + sizes["pad_id"] + 1
            index = jnp.cumsum(real, axis=1) * real + sizes["pad_id"]
            with hk.name_scope("esm_learned_positional_embeddings"):
                x += hk.Embed(rows, sizes["embed_dim"], name="embed")(index)
        mask = (real[:, :, None] & real[:, None, :])[:, None]
        for number in range(sizes["num_layers"]):
            x = Layer(sizes, name=f"attention_layer_{number}")(x, mask)
        return Head(sizes, name="esm_roberta_lm_head")(x)


def norm(sizes: dict[str, Any], name: str) -> hk.LayerNorm:
    """LayerNorm over the last axis."""
    return hk.LayerNorm(-1, True, True, sizes["layer_norm_epsilon"], name=name)


def build(sizes: dict[str, Any]) -> hk.Transformed:
    """The model in its mixed precision."""
    dtype = sizes["compute_dtype"]
    policy = jmp.get_policy(f"params=float32,compute={dtype},output={dtype}")
    hk.mixed_precision.set_policy(Transformer, policy)
    hk.mixed_precision.set_policy(
        hk.LayerNorm, jmp.get_policy(f"params=float32,compute=float32,output={dtype}")
    )
    return hk.without_apply_rng(hk.transform(lambda tokens: Transformer(sizes)(tokens)))


class _Contestant:
    """What training and embedding have in common."""

    def __init__(self, folder: str):
        self.folder = pathlib.Path(folder)
        self.sizes = json.loads((self.folder / "sizes.json").read_text())
        self.model = build(self.sizes)
        jnp.zeros(()).block_until_ready()
        self.resident = child.Resident()

    def about(self) -> dict[str, Any]:
        """What computes, and the size of the model."""
        one = jax.devices()[0]
        sizes = jax.tree.map(lambda x: x.size, self.abstract())
        return {
            "platform": one.platform,
            "device": one.device_kind,
            "parameters": sum(jax.tree.leaves(sizes)),
        }

    def abstract(self) -> Any:
        """Shapes of the parameters."""
        tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        return jax.eval_shape(self.model.init, jax.random.key(0), tokens)

    def params(self) -> Any:
        """The common weights where there are any, else fresh ones."""
        folder = self.folder / "weights"
        if not folder.is_dir():
            return jax.jit(self.model.init)(jax.random.key(0), jnp.full((1, 8), 9))
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, array in read_hf(folder):
            module, _, last = name.replace("/~/", "/").rpartition("/")
            found.setdefault(module, {})[last] = np.array(array, np.float32)
        assert jax.tree.map(np.shape, found) == jax.tree.map(jnp.shape, self.abstract())
        return jax.device_put(found)

    def peak(self) -> int:
        """Bytes of the device, or of this process on a CPU."""
        stats = jax.devices()[0].memory_stats() or {}
        return int(stats.get("peak_bytes_in_use") or self.resident.peak())


class Train(_Contestant):
    """Steps on batches that are masked beforehand, in `parts` micro-batches."""

    def __init__(self, folder: str, parts: int = 1):
        super().__init__(folder)
        self.parts, self.steps = parts, 0
        self.inputs, self.labels = (
            np.load(self.folder / f"{name}.npy") for name in ("inputs", "labels")
        )
        optimizer = optax.adam(self.sizes["learning_rate"])

        def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
            logits, _ = self.model.apply(params, inputs)
            asked = labels != IGNORED
            nats = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), jnp.where(asked, labels, 0)
            )
            return jnp.sum(nats * asked) / jnp.sum(asked)

        def update(params: Any, moments: Any, grads: Any) -> Any:
            updates, moments = optimizer.update(grads, moments, params)
            return optax.apply_updates(params, updates), moments

        def step(params: Any, moments: Any, inputs: jax.Array, labels: jax.Array) -> Any:
            value, grads = jax.value_and_grad(loss)(params, inputs, labels)
            return value, *update(params, moments, grads)

        def add(sums: Any, params: Any, inputs: jax.Array, labels: jax.Array) -> Any:
            return jax.tree.map(jnp.add, sums, jax.value_and_grad(loss)(params, inputs, labels))

        def finish(params: Any, moments: Any, sums: Any) -> Any:
            value, grads = jax.tree.map(lambda x: x / parts, sums)
            return value, *update(params, moments, grads)

        self.optimizer = optimizer
        if parts == 1:
            self.step: Any = jax.jit(step)
        else:
            self.first: Any = jax.jit(jax.value_and_grad(loss))
            self.add: Any = jax.jit(add)
            self.finish: Any = jax.jit(finish)

    def compile(self) -> float:
        """Seconds of tracing and compiling the step; nothing is allocated."""
        start = time.perf_counter()
        params = self.abstract()
        moments = jax.eval_shape(self.optimizer.init, params)
        batch, length = self.inputs.shape[1:]
        tokens = jax.ShapeDtypeStruct((batch // self.parts, length), jnp.int32)
        if self.parts == 1:
            self.step = self.step.lower(params, moments, tokens, tokens).compile()
        else:
            sums = (jax.ShapeDtypeStruct((), jnp.float32), params)
            self.first = self.first.lower(params, tokens, tokens).compile()
            self.add = self.add.lower(sums, params, tokens, tokens).compile()
            self.finish = self.finish.lower(params, moments, sums).compile()
        return time.perf_counter() - start

    def load(self, steps: int) -> list[float]:
        """Losses of the first steps."""
        self.state = (params := self.params()), jax.jit(self.optimizer.init)(params)
        losses = self._run(steps)
        self.resident.restart()
        return losses

    def turn(self, steps: int) -> float:
        """Seconds of a step, after one that wakes up what slept while the others worked."""
        self._run(1)
        start = time.perf_counter()
        self._run(steps)
        return (time.perf_counter() - start) / steps

    def _run(self, steps: int) -> list[float]:
        losses: list[Any] = []
        for _ in range(steps):
            number = self.steps % len(self.inputs)
            losses.append(self._step(self.inputs[number], self.labels[number]))
            self.steps += 1
            if len(losses) > 1:
                losses[-2] = float(losses[-2])
        jax.block_until_ready(self.state)
        return [float(loss) for loss in losses]

    def _step(self, inputs: np.ndarray, labels: np.ndarray) -> jax.Array:
        if self.parts == 1:
            loss, *state = self.step(*self.state, inputs, labels)
        else:
            parts = zip(np.split(inputs, self.parts), np.split(labels, self.parts), strict=True)
            params, moments = self.state
            sums = self.first(params, *next(parts))
            for part in parts:
                sums = self.add(sums, params, *part)
            loss, *state = self.finish(params, moments, sums)
        self.state = tuple(state)
        return loss


class Embed(_Contestant):
    """The published way: all outputs of the jitted model, then the mean over the real tokens."""

    def __init__(self, folder: str):
        super().__init__(folder)
        self.values = self.params()
        self.run = jax.jit(self.model.apply)
        self.sequences = len(np.load(self.folder / "order.npy"))
        # All sequences padded to the longest, so that one shape is compiled.
        self.batches = [np.load(path) for path in sorted(self.folder.glob("padded_*.npy"))]

    def load(self, out: str) -> float:
        """Seconds of the first time, compilation included; the vectors go to a file."""
        start = time.perf_counter()
        vectors = self._embed()
        seconds = time.perf_counter() - start
        np.save(out, vectors)
        self.resident.restart()
        return seconds

    def turn(self) -> float:
        """Seconds for all sequences."""
        start = time.perf_counter()
        self._embed()
        return time.perf_counter() - start

    def _embed(self) -> np.ndarray:
        found = []
        for tokens in self.batches:
            _, embeddings = self.run(self.values, tokens)
            real = (tokens != self.sizes["pad_id"])[:, 1:, None]
            means = (embeddings[:, 1:] * real).astype(jnp.float32).sum(axis=1) / real.sum(axis=1)
            found.append(np.asarray(means))
        return np.concatenate(found)[: self.sequences]


if __name__ == "__main__":
    child.serve({"train": Train, "embed": Embed})
