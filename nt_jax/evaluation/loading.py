"""`nt_jax.load`: a checkpoint as a model that can be asked."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from nt_jax import transfer
from nt_jax.checkpoint import parse_checkpoint, restore_params
from nt_jax.config import Experiment, ModelConfig
from nt_jax.errors import InputError
from nt_jax.evaluation.embed import BATCH_TOKENS, Bases, Pooling, embed_layers
from nt_jax.evaluation.results import UNKNOWN_TOKENS
from nt_jax.model.attention import reference_heads
from nt_jax.model.factory import Model, Params, build_model
from nt_jax.model.flash import attention_here
from nt_jax.tokenizers import KmerTokenizer

HeadNumbers = Literal["true", "reference"]
_HEAD_NUMBERS: Mapping[str, Callable[[Array], Array]] = {
    "true": lambda maps: maps,
    "reference": reference_heads,
}


def tokens_seen(config: Experiment, step: int) -> int:
    """Tokens that `step` steps have read; -1 for parameters from elsewhere (step 0)."""
    return step * config.train.global_batch * config.data.sequence_length or UNKNOWN_TOKENS


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """Parameters with everything needed to run them. Layers are 1-based."""

    config: Experiment
    """The experiment that made the parameters."""
    params: Params
    """Float32 parameters, listed in `nt_jax.model.factory`."""
    tokenizer: KmerTokenizer
    """Bases <-> token ids."""
    step: int
    """Optimizer step of the checkpoint."""
    model: Model
    """The pure functions; `apply` and `embed` below are their checked, compiled forms."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks (L)."""
        return self.config.model.num_layers

    @property
    def tokens(self) -> int:
        """Tokens seen in training up to this step; -1 for parameters from elsewhere (step 0)."""
        return tokens_seen(self.config, self.step)

    @property
    def context(self) -> int:
        """Longest input of `embed` in tokens, `<cls>` included: as trained, not as allowed.

        Positions beyond the training length have never been seen (a learned table holds noise
        there), so longer sequences are windowed although `apply` accepts `max_positions`.
        """
        return min(self.config.model.max_positions, self.config.data.sequence_length)

    def apply(
        self,
        tokens: np.ndarray | Array,
        layers: Sequence[int] = (),
        attention: bool = False,
        heads: HeadNumbers = "true",
    ) -> dict[str, Any]:
        """Logits and what else is asked for; compiled once for each shape and choice of layers.

        `tokens` are integers [B, T]; pads are fastest at the end. Returns {"logits": float32
        [B, T, V], "embeddings": {layer: [B, T, D]} (the last layer's is the output of the head's
        first LayerNorm), "attention": {layer: [B, H, T, T]} (query, key) of `layers`, or of all
        layers when none is named}. Heads count from 0; `heads="reference"` gives them the numbers
        of the published `attention_maps_to_save` (`reference_heads`). Raises InputError for token
        ids outside the vocabulary, more than `max_positions` tokens, an unknown layer or numbering.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise InputError(
                f"tokens must be integers [batch, length], not {tokens.dtype}{list(tokens.shape)}; "
                "one sequence is tokens[None]"
            )
        longest, vocabulary = self.config.model.max_positions, self.tokenizer.vocab_size
        if tokens.shape[1] > longest:
            raise InputError(f"{tokens.shape[1]} tokens; the model takes at most {longest}")
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < vocabulary):
            wrong = tokens[(tokens < 0) | (tokens >= vocabulary)][0]
            raise InputError(f"token id {wrong} is outside the vocabulary of {vocabulary}")
        if heads not in _HEAD_NUMBERS:
            raise InputError(f"heads={heads!r}; known: {', '.join(_HEAD_NUMBERS)}")
        chosen = self.check_layers(layers)
        pads = tokens == self.tokenizer.pad_id
        # Kernels are told lengths; what has pads elsewhere goes the dense way.
        at_the_end = not np.any(pads[:, :-1] & ~pads[:, 1:])
        model = self.model if at_the_end else _dense(self.config.model, self.tokenizer)
        return _apply(model, self.params, tokens.astype(np.int32), chosen, attention, heads)

    def embed(
        self,
        sequences: Iterable[Bases],
        layer: int | None = None,
        pooling: Pooling = "mean",
        batch_tokens: int = BATCH_TOKENS,
    ) -> Float[np.ndarray, "N D"]:
        """Pooled embeddings of one layer (default: the last), float32; see `embed_layers`."""
        layer = self.num_layers if layer is None else layer
        found = self.embed_layers(sequences, (layer,), pooling, batch_tokens)
        return found[layer]

    def embed_layers(
        self,
        sequences: Iterable[Bases],
        layers: Sequence[int],
        pooling: Pooling = "mean",
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[int, Float[np.ndarray, "N D"]]:
        """Pooled embeddings of several layers from one pass over the sequences."""
        return embed_layers(
            self.model,
            self.params,
            self.tokenizer,
            sequences,
            self.check_layers(layers),
            context=self.context,
            pooling=pooling,
            batch_tokens=batch_tokens,
            progress=progress,
        )

    def check_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        """The layers as a tuple; InputError when one is not in 1..L."""
        for layer in layers:
            if not 1 <= layer <= self.num_layers:
                raise InputError(f"layer {layer}: the model has layers 1..{self.num_layers}")
        return tuple(int(layer) for layer in layers)


def load(name: str | pathlib.Path) -> LoadedModel:
    """Loads `DIR[@STEP]`, by default the newest committed step; raises InputError."""
    workdir, asked = parse_checkpoint(name)
    params, step, experiment = restore_params(workdir, asked)
    return from_params(params, step, experiment)


def from_params(params: Params, step: int, experiment: Experiment) -> LoadedModel:
    """Joins parameters with the functions that their experiment describes."""
    tokenizer = experiment.tokenizer.make()
    model = build_model(experiment.model, tokenizer, attention_here(experiment.model))
    return LoadedModel(experiment, params, tokenizer, step, model)


def random_like(loaded: LoadedModel, seed: int) -> LoadedModel:
    """Same architecture, freshly initialised: the control that shows what training added."""
    start = transfer.starting(loaded.model, loaded.config)
    params = jax.jit(start.init)(jax.random.key(seed))
    return dataclasses.replace(loaded, params=params, step=0)


@functools.cache
def _dense(model: ModelConfig, tokenizer: KmerTokenizer) -> Model:
    return build_model(model, tokenizer)


@functools.partial(jax.jit, static_argnames=("model", "layers", "attention", "heads"))
def _apply(
    model: Model,
    params: Params,
    tokens: Int[np.ndarray | Array, "B T"],
    layers: tuple[int, ...],
    attention: bool,
    heads: HeadNumbers,
) -> dict[str, Any]:
    found = model.apply(params, tokens, layers, attention)
    renumber = _HEAD_NUMBERS[heads]
    maps = {layer: renumber(layer_maps) for layer, layer_maps in found["attention"].items()}
    return found | {"attention": maps}
