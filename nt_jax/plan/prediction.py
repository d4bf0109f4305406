"""A plan: one experiment on one topology, and everything that is predicted of the run."""

import dataclasses
import math
import pathlib
from typing import Any

from nt_jax.config import Experiment
from nt_jax.hardware import Chip
from nt_jax.plan import estimate, hlo
from nt_jax.plan.collectives import Collective, collectives
from nt_jax.plan.compiler import Compiled, compile_step
from nt_jax.plan.roofline import Times, times
from nt_jax.plan.topology import Topology
from nt_jax.plan.work import Work, work

TOKEN_BYTES = 4
HEADROOM = 0.92
"""Share of the memory that a plan by formula alone may fill."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Predictions for a run; memory in bytes of one JAX device."""

    experiment: Experiment
    topology: Topology
    source: str
    """compiled, formula, or measured (compiled for this machine and run)."""
    mesh: dict[str, int]
    fits: bool
    peak: float
    """State, temporaries and code."""
    hbm: float
    """What there is."""
    state: float
    temporaries: float
    code: float
    estimated: estimate.Memory
    """By formula, beside what the compiler says."""
    compile_seconds: float | None
    """Processor time; None where nothing was compiled."""
    collectives: list[Collective]
    times: Times | None
    """None for a program that the compiler could not fit."""
    executed_flops: float
    """Of a step over all devices, recomputation included."""
    price: float | None
    """US dollars a chip-hour."""
    measured: dict[str, Any] | None = None
    """Of real steps on this machine."""
    nearest: "Plan | None" = None
    """What fits, found because this does not."""

    @property
    def flops(self) -> float:
        """Model FLOPs of a step over all devices."""
        return estimate.flops_per_step(self.experiment)

    @property
    def tokens_per_step(self) -> int:
        """Over all devices."""
        return self.experiment.train.global_batch * self.experiment.data.sequence_length

    @property
    def peak_flops(self) -> float:
        """bfloat16 peak of all devices in FLOP/s."""
        return self.topology.chip.flops / self.topology.chip.devices * self.topology.devices

    @property
    def step_seconds(self) -> float | None:
        """Predicted."""
        return self.times.step if self.times else None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation, against the bfloat16 peak."""
        return self.flops / self.step_seconds / self.peak_flops if self.step_seconds else None

    @property
    def tokens_per_s(self) -> float | None:
        """Over all devices."""
        return self.tokens_per_step / self.step_seconds if self.step_seconds else None

    @property
    def days(self) -> float | None:
        """To the experiment's last step; no stops, no evaluation."""
        steps = self.experiment.train.steps
        return self.step_seconds * steps / 86_400 if self.step_seconds else None

    @property
    def cost(self) -> float | None:
        """US dollars to the last step."""
        if self.days is None or self.price is None:
            return None
        return self.days * 24 * self.price * self.topology.chips * self.topology.slices

    @property
    def input_bytes_per_s(self) -> float | None:
        """Tokens that each host must supply, in bytes a second."""
        if not self.tokens_per_s:
            return None
        return TOKEN_BYTES * self.tokens_per_s / self.topology.hosts

    @property
    def windows_per_s(self) -> float | None:
        """That each host must read."""
        if not self.tokens_per_s:
            return None
        length = self.experiment.data.sequence_length
        return self.tokens_per_s / length / self.topology.hosts

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "experiment": self.experiment.name,
            "topology": self.topology.name,
            "chips": self.topology.chips * self.topology.slices,
            "hosts": self.topology.hosts,
            "source": self.source,
            "fits": self.fits,
            "peak_hbm_bytes": self.peak,
            "hbm_bytes": self.hbm,
            "state_bytes": self.state,
            "temporary_bytes": self.temporaries,
            "code_bytes": self.code,
            "estimated_hbm_bytes": self.estimated.total,
            "compile_seconds": self.compile_seconds,
            "flops_per_step": self.flops,
            "executed_flops_per_step": self.executed_flops,
            "step_seconds": self.step_seconds,
            "times": dataclasses.asdict(self.times) if self.times else None,
            "mfu": self.mfu,
            "tokens_per_s": self.tokens_per_s,
            "steps": self.experiment.train.steps,
            "days": self.days,
            "cost": self.cost,
            "price_per_chip_hour": self.price,
            "host_input_bytes_per_s": self.input_bytes_per_s,
            "host_windows_per_s": self.windows_per_s,
            "mesh": self.mesh,
            "remat": self.experiment.model.remat,
            "accumulate": self.experiment.train.accumulate,
            "flags": flags(self.experiment),
            "collectives": [dataclasses.asdict(one) for one in self.collectives],
            "measured": self.measured,
            "nearest": self.nearest.to_dict() if self.nearest else None,
        }


def flags(experiment: Experiment) -> str:
    """Overrides of the shape of a run, to paste behind the experiment's name."""
    mesh = experiment.mesh
    parts = {
        "--mesh.slices": mesh.slices,
        "--mesh.data": mesh.data,
        "--mesh.fsdp": mesh.fsdp,
        "--mesh.sequence": mesh.sequence,
        "--mesh.tensor": mesh.tensor,
        "--train.accumulate": experiment.train.accumulate,
        "--model.remat": experiment.model.remat,
    }
    usual = {"--mesh.slices": 1, "--mesh.sequence": 1, "--mesh.tensor": 1}
    return " ".join(f"{name} {value}" for name, value in parts.items() if usual.get(name) != value)


def predict(
    experiment: Experiment, topology: Topology, cache: pathlib.Path, price: float | None = None
) -> Plan:
    """Compiles for a TPU slice, and by formula for GPUs. Raises InputError."""
    if not topology.compiled:
        return by_formula(experiment, topology, price)
    mesh = estimate.mesh_sizes(experiment, topology)
    return of_compiled(experiment, topology, compile_step(experiment, topology, cache), mesh, price)


def of_compiled(
    experiment: Experiment, topology: Topology, compiled: Compiled, mesh: dict[str, int],
    price: float | None,
) -> Plan:  # fmt: skip
    """The plan of a program."""
    exchanged: list[Collective] = []
    costs: list[Work] = []
    spent = None
    if compiled.program:
        module = hlo.parse(compiled.program)
        exchanged, costs = collectives(module, compiled.mesh), work(module)
        spent = times(topology, experiment.model.compute_dtype, costs, exchanged, compiled.mesh)
    hbm = device_memory(topology.chip)
    return Plan(
        experiment=experiment,
        topology=topology,
        source="compiled",
        mesh=compiled.mesh,
        fits=bool(compiled.program) and compiled.peak <= hbm,
        peak=compiled.peak,
        hbm=hbm,
        state=compiled.arguments,
        temporaries=compiled.peak - compiled.arguments - compiled.code,
        code=compiled.code,
        estimated=estimate.memory(experiment, mesh, topology.chip.platform),
        compile_seconds=compiled.seconds,
        collectives=exchanged,
        times=spent,
        executed_flops=topology.devices * math.fsum(one.times * one.flops for one in costs)
        or estimate.executed_flops(experiment),
        price=topology.chip.price if price is None else price,
    )


def by_formula(experiment: Experiment, topology: Topology, price: float | None = None) -> Plan:
    """The plan without a compiler: GPU meshes, and the first look of a search."""
    mesh = estimate.mesh_sizes(experiment, topology)
    memory = estimate.memory(experiment, mesh, topology.chip.platform)
    exchanged = estimate.collectives(experiment, mesh)
    executed = estimate.executed_flops(experiment)
    costs = [
        Work(1, executed / topology.devices, 0.0, 0),
        Work(1, 0.0, estimate.traffic(experiment, mesh, topology.chip.platform), 0),
    ]
    hbm = device_memory(topology.chip)
    return Plan(
        experiment=experiment,
        topology=topology,
        source="formula",
        mesh=mesh,
        fits=memory.total <= HEADROOM * hbm,
        peak=memory.total,
        hbm=hbm,
        state=memory.state,
        temporaries=memory.total - memory.state,
        code=0.0,
        estimated=memory,
        compile_seconds=None,
        collectives=exchanged,
        times=times(topology, experiment.model.compute_dtype, costs, exchanged, mesh),
        executed_flops=executed,
        price=topology.chip.price if price is None else price,
    )


def device_memory(chip: Chip) -> float:
    """Bytes that a program may use on one JAX device."""
    return chip.memory / chip.devices
