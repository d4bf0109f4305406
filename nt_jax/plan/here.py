"""The plan for the devices of this machine, checked by running real steps on them."""

import dataclasses
from typing import Any

from nt_jax import config, hardware
from nt_jax.config import Experiment
from nt_jax.hardware import Chip
from nt_jax.plan import compiler
from nt_jax.plan.compiler import Compiled
from nt_jax.plan.prediction import Plan, of_compiled
from nt_jax.plan.topology import Topology

STEPS = 5


def plan_here(
    experiment: Experiment, environment: dict[str, str], price: float | None = None,
    steps: int = STEPS,
) -> Plan:  # fmt: skip
    """Compiles for this machine, predicts, runs `steps` steps (if they fit) and measures.

    `environment` is that of the process that does it: it sees the devices.
    The roofline of a CPU has this machine's measured rates; known accelerators are in the table.
    """
    request = {"experiment": config.to_dict(experiment), "topology": None, "steps": steps}
    record, program = compiler.work(request, environment)
    device, measured = record.pop("device"), record.pop("measured")
    compiled = Compiled(**record, program=program, cached=False)
    chip = hardware.of_kind(device["kind"]) or _measured(device)
    chips = device["count"] // chip.devices
    topology = Topology("here", chip, chips, (chips,), 1)
    plan = of_compiled(experiment, topology, compiled, compiled.mesh, price)
    plan = dataclasses.replace(plan, measured={"device": device})
    if measured is None:
        return plan
    # The devices of a CPU share its memory.
    peak = plan.peak * (device["count"] if device["platform"] == "cpu" else 1)
    errors = {
        "predicted_peak_bytes": peak,
        "peak_error": peak / measured["peak_bytes"] - 1,
        "predicted_step_seconds": plan.step_seconds,
        "step_error": (plan.step_seconds or 0.0) / measured["step_seconds"] - 1,
    }
    return dataclasses.replace(
        plan, source="measured", measured={"device": device, **measured, **errors}
    )


def _measured(device: dict[str, Any]) -> Chip:
    """A machine that is in no table, with the rates that were measured on it."""
    return Chip(
        name="here",
        kinds=(device["kind"],),
        flops=device["flops"],
        float32=1.0,
        memory=device["memory_bytes"],
        bandwidth=device["bandwidth"],
        link=device["bandwidth"],
        network=device["bandwidth"],
        price=None,
        host=device["count"],
        devices=device["count"],
        flops_share=1.0,
        bandwidth_share=1.0,
    )
