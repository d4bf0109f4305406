"""Frozen dataclasses for everything an experiment fixes, and their JSON form.

A config is data: it holds no arrays and imports no JAX. `to_json` is the text that the golden
files, `config.json` of a workdir and every exported checkpoint carry; `from_json` reads it back.

Glossary used throughout the package: B batch, T tokens, D model width, H heads, K head size,
F feed-forward width, V vocabulary, L layers, M selected (masked) positions of a sequence.
"""

import dataclasses
import json
import types
import typing
from typing import Any, Literal, TypeVar

from nt_jax.errors import InputError
from nt_jax.tokenizers import KmerTokenizer

C = TypeVar("C")


class ConfigError(InputError):
    """A config that cannot be run; the message is one line and names the field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which vocabulary turns bases into tokens (FACTS: v1 has 4 special tokens, v2 has 6)."""

    k: int = 6
    """Bases per token; 1 is single nucleotide, 3 is codons."""
    vocabulary: Literal["v1", "v2"] = "v2"
    """Special tokens in front: v1 `<unk> <pad> <mask> <cls>`, v2 adds `<eos> <bos>`."""
    letters: Literal["any", "upper_acgtn"] = "any"
    """Sequences as they come, or only upper-case A, C, G, T and N as in the published code (other
    letters are refused). FASTA files and task tables are cleaned before they are tokenized."""

    def make(self) -> KmerTokenizer:
        """The tokenizer itself."""
        return KmerTokenizer(k=self.k, vocabulary=self.vocabulary, letters=self.letters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One encoder that covers NT v1 and v2."""

    num_layers: int = 12
    """Transformer blocks (L)."""
    num_heads: int = 16
    """Attention heads (H)."""
    embed_dim: int = 512
    """Model width (D)."""
    ffn_dim: int = 2048
    """Feed-forward width (F); a gated first projection has 2F columns."""
    key_size: int | None = None
    """Size of one head (K); None is D/H."""
    positions: Literal["learned", "rotary"] = "rotary"
    """Learned table (v1, as in ESM) or rotary angles (v2)."""
    max_positions: int = 2048
    """Longest input in tokens, `<cls>` included; a learned table has max_positions + 2 rows."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_rescale: float = 1.0
    """Context extension s: the base becomes base * s^(K/(K-2)) (SegmentNT)."""
    rotary_angles: Literal["float32", "compute_dtype"] = "float32"
    """Angles and rotation in float32, or rounded to the compute dtype as in the published code
    (docs/interchange.md); the two are the same in float32."""
    ffn_activation: Literal["gelu", "swish"] = "swish"
    """Exact GELU (v1) or swish (v2)."""
    ffn_gated: bool = True
    """SwiGLU: the activated first half multiplies the second half."""
    ffn_bias: bool = False
    """Biases in the feed-forward projections (v1: yes, v2: no)."""
    token_dropout: float = 0.0
    """Share of `<mask>` expected in training (v1: 0.12); 0 switches ESM's token dropout off."""
    embed_scale: float = 1.0
    """Factor on the token embeddings."""
    embed_init_std: float = 1.0
    """Standard deviation of fresh embeddings: 1 is Haiku's default and the reference's; with 0.02
    a small model reads the context from its first steps on (docs/first_result.md)."""
    embed_layer_norm: bool = False
    """LayerNorm after the embedding."""
    layer_norm_epsilon: float = 1e-5
    """Epsilon of every LayerNorm."""
    attention: Literal["fastest", "dense"] = "fastest"
    """fastest: a kernel that never lays the scores out, where the device has one and
    compute_dtype is bfloat16 (nt_jax/model/flash.py); dense: scores in memory, everywhere."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations; parameters, LayerNorm, softmax, logits and loss are always float32."""
    remat: Literal["none", "dots", "full"] = "none"
    """What a block recomputes in the backward pass: nothing, all but matmuls, everything."""

    @property
    def head_size(self) -> int:
        """Size K of one attention head."""
        return self.key_size or self.embed_dim // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """BERT corruption. The 1000G runs used random=0 (FACTS, S)."""

    ratio: float = 0.15
    """Share of real tokens selected; exactly round(ratio * tokens), at least one, a sequence."""
    mask: float = 0.8
    """Share of the selected tokens replaced by `<mask>`."""
    random: float = 0.1
    """Share replaced by a random different k-mer; what is left is kept as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which windows feed the run."""

    path: str = ""
    """Folder written by `nt-jax data build`."""
    recipe: str = "paper12k"
    """Window recipe that this experiment expects (documentation and `plan`; the data decide)."""
    sequence_length: int = 2048
    """Tokens of one training sequence, `<cls>` included."""
    reverse_complement: float = 0.5
    """Probability that a window is read from the other strand."""
    weights: str = "proportional"
    """How often each source is read: proportional, temperature=T, equal, species, group, manifest,
    NAME=W,... or several with the step from which they hold: RULE;RULE@STEP."""
    haplotypes: Literal["drawn", "reference"] = "drawn"
    """Where the dataset has haplotypes: one drawn for each row, or the reference always."""
    workers: int = 0
    """Loader processes; 0 reads in threads of the training process. Never changes a window."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optax chain. Defaults are the published Adam recipe (FACTS)."""

    name: Literal["adam", "adamw"] = "adam"
    """Optimizer."""
    schedule: Literal["nt", "cosine", "wsd", "constant"] = "nt"
    """nt: linear warm-up, then peak * sqrt(warmup/step); wsd: warm-up, stable, linear decay."""
    init_lr: float = 5e-5
    """Learning rate at step 0."""
    peak_lr: float = 1e-4
    """Learning rate at the end of the warm-up."""
    end_lr: float = 0.0
    """Learning rate at the last step (cosine, wsd)."""
    warmup_steps: int = 16_000
    """Steps of linear warm-up."""
    decay_share: float = 0.2
    """Share of all steps that wsd spends decaying."""
    b1: float = 0.9
    """Adam beta 1."""
    b2: float = 0.999
    """Adam beta 2."""
    eps: float = 1e-8
    """Adam epsilon."""
    weight_decay: float = 0.0
    """AdamW decay; matrices only, never biases, LayerNorms or embeddings."""
    clip: float = 0.0
    """Global gradient norm limit; 0 is off."""
    base_width: int = 0
    """Width D that peak_lr was found at: others follow muP (nt_jax/transfer.py). 0 is off."""
    base_depth: int = 0
    """Layers L that peak_lr was found at: others follow CompleteP. 0 is off."""
    spike_factor: float = 0.0
    """A gradient norm above this many times the running mean of the accepted ones is a spike: the
    step is skipped and counted. 0 is off."""
    spike_window: int = 128
    """Steps over which that mean runs; no step is a spike before so many were accepted."""
    nonfinite_limit: int = 20
    """Consecutive skipped steps (non-finite or spikes) at which the run stops or rolls back."""
    on_limit: Literal["stop", "rollback"] = "stop"
    """At the limit: stop, or go back to the checkpoint before and leave out the batches since."""
    rollback_limit: int = 3
    """Rollbacks of a run; at the next one it stops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how large, how often."""

    steps: int = 300_000
    """Optimizer steps."""
    global_batch: int = 512
    """Sequences per optimizer step, over all devices and accumulation."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    seed: int = 0
    """Seed of parameters, window order, crops, strands and masks."""
    head_init: Literal["random", "unigram"] = "random"
    """Start of the last projection; unigram: zero weights and the log-frequencies of the training
    tokens as bias, so that a short run starts at the k-mer baseline and not above it."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    eval_every: int = 1_000
    """Steps between validations; the last step is always validated."""
    eval_windows: int = 512
    """Validation windows read each time (spread evenly); 0 is all of them."""
    watchdog_seconds: float = 1_800.0
    """A process in which no step ends for so long shows its stacks and exits with 1; other phases
    (compilation, validation, saves) have half an hour at least. 0 is off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Mesh axes; -1 takes all devices that are left."""

    slices: int = 1
    """Slices joined by the data-centre network; each holds whole copies of the model."""
    data: int = -1
    """Copies of the model within a slice."""
    fsdp: int = 1
    """Devices over which parameters and moments are sharded (the batch too)."""
    sequence: int = 1
    """Devices over which the tokens of a sequence are split."""
    tensor: int = 1
    """Devices over which heads and feed-forward columns are split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved and which checkpoints stay."""

    every: int = 1_000
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 3
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints at multiples of this step are kept for good; 0 is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that fixes a run. Same config, same devices: same bits."""

    name: str
    """Name the run is known by."""
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    masking: MaskingConfig = MaskingConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionary of a config dataclass."""
    return dataclasses.asdict(config)


def to_json(config: Any) -> str:
    """Indented JSON text; stable under equal configs."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(kind: type[C], values: Any, where: str = "config") -> C:
    """Rebuilds a config dataclass; raises ConfigError on an unknown, ill-typed or missing field."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {values!r} is not a table of fields")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(hints)}")
    built = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            value = from_dict(typing.cast(type, hint), value, f"{where}.{name}")
        elif not _fits(value, hint):
            raise ConfigError(f"{where}.{name}: {value!r} is not a {hint}")
        built[name] = float(value) if hint is float else value
    try:
        return kind(**built)
    except TypeError as error:  # a field without a default is missing
        raise ConfigError(f"{where}: {error}") from error


def from_json(kind: type[C], text: str, where: str = "config") -> C:
    """Inverse of `to_json`."""
    return from_dict(kind, json.loads(text), where)


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
