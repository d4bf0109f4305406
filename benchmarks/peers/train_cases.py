"""Which models train_step.py trains, and how much of each fits into memory."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from nt_jax.config import Experiment, ModelConfig, TokenizerConfig
from peers.problem import Problem, problem, shaped


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and how it is run."""

    name: str
    problem: Problem
    parts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Micro-batches of a module's contestant, where one is not enough for the memory."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Modules whose contestants take turns because their memory fits together; default: all."""
    same_weights: bool = True
    variants: bool = False
    """Whether variants of ours are measured too."""


def small_v1() -> Experiment:
    """21.8M parameters: the small model of the project's targets."""
    model = ModelConfig(
        num_layers=10,
        num_heads=6,
        embed_dim=384,
        ffn_dim=1536,
        positions="learned",
        max_positions=2048,
        ffn_activation="gelu",
        ffn_gated=False,
        ffn_bias=True,
        token_dropout=0.15 * 0.8,
    )
    return Experiment(name="v1 22M", model=model, tokenizer=TokenizerConfig(vocabulary="v1"))


def cpu_cases() -> list[Case]:
    """Small models in float32."""
    return [
        Case("v1_22m_256", shaped(small_v1(), 8, 256, "float32")),
        Case("v1_22m_1024", shaped(small_v1(), 2, 1024, "float32")),
        Case("v2_micro_256", problem("nt_v2_micro", 16, 256, "float32")),
        Case("v2_nano_256", problem("nt_v2_nano", 8, 256, "float32")),
        Case("v2_nano_1024", problem("nt_v2_nano", 2, 1024, "float32")),
    ]


def gpu_cases() -> list[Case]:
    """The published models, most wanted first, on a card that holds them without recomputation.

    Micro-batches keep the plain step in memory.
    """
    both = (("ours", "torch_esm"), ("plain_haiku",))
    alone = (("torch_esm",), ("ours",), ("plain_haiku",))
    return [
        Case(
            "v1_500m", problem("nt_v1_500m_human_ref", 32, 1000, "bfloat16", remat="none"),
            {"plain_haiku": 4}, both, variants=True,
        ),
        Case(
            "v2_500m", problem("nt_v2_500m_multispecies", 16, 2048, "bfloat16", remat="none"),
            {"plain_haiku": 4}, both,
        ),
        Case(
            "v1_2b5", problem("nt_v1_2b5_multispecies", 8, 1000, "bfloat16", remat="none"),
            {"plain_haiku": 4}, alone, same_weights=False,
        ),
        Case(
            "v2_250m", problem("nt_v2_250m_multispecies", 16, 2048, "bfloat16", remat="none"),
            {"plain_haiku": 4}, both,
        ),
        Case(
            "v2_50m", problem("nt_v2_50m_multispecies", 32, 2048, "bfloat16", remat="none"),
            {"plain_haiku": 4}, both,
        ),
    ]  # fmt: skip


def small_cases() -> list[Case]:
    """Stand-ins for the GPU's cases: two layers, short windows, the same paths."""
    tiny = {"num_layers": 2, "num_heads": 4, "embed_dim": 64, "ffn_dim": 128}
    found = []
    for case in gpu_cases():
        experiment = dataclasses.replace(case.problem.experiment, name=case.problem.name)
        made = shaped(experiment, 8, 64, "bfloat16", **tiny)
        found.append(dataclasses.replace(case, problem=made))
    return [found[0], found[1], found[2]]


def chosen_cases(cases: Sequence[Case], wanted: Sequence[str]) -> Iterator[Case]:
    """Cases by NAME or NAME=BATCH; all of them where none is named."""
    known = {case.name: case for case in cases}
    for word in wanted or known:
        name, _, batch = word.partition("=")
        if name not in known:
            raise SystemExit(f"no case {name!r}; known: {', '.join(known)}")
        case = known[name]
        if batch:
            experiment = case.problem.experiment
            train = dataclasses.replace(experiment.train, global_batch=int(batch))
            made = Problem(case.problem.name, dataclasses.replace(experiment, train=train))
            case = dataclasses.replace(case, problem=made)
        yield case
