"""Where a process stands among those of its run: what the environment says of it."""

import importlib.util
import os

from nt_jax.errors import InputError
from nt_jax.rendezvous import Place

COORDINATOR, COUNT, INDEX = "NT_JAX_COORDINATOR", "NT_JAX_PROCESS_COUNT", "NT_JAX_PROCESS_ID"
SECONDS = "NT_JAX_BARRIER_SECONDS"
_SECONDS_BY_DEFAULT = 300.0


def barrier_seconds() -> float:
    """How long a process is waited for (`NT_JAX_BARRIER_SECONDS`, 300); raises InputError."""
    text = os.environ.get(SECONDS, "")
    try:
        seconds = float(text) if text else _SECONDS_BY_DEFAULT
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"{SECONDS}={text!r} is no number of seconds above 0")
    return seconds


def find_place() -> tuple[Place, list[int] | None] | None:
    """Where this process stands, and its devices where they are shared out; None if it is alone.

    From `NT_JAX_COORDINATOR`, `NT_JAX_PROCESS_COUNT` and `NT_JAX_PROCESS_ID`, else as JAX finds it
    on Cloud TPU, Slurm, Open MPI and Kubernetes. Raises InputError for half of a description.
    """
    given = {name: os.environ.get(name, "") for name in (COORDINATOR, COUNT, INDEX)}
    if given[COUNT] == "1":
        return None
    if any(given.values()):
        return _explicit(given), None
    return _detected()


def _explicit(given: dict[str, str]) -> Place:
    absent = [name for name, value in given.items() if not value]
    if absent:
        raise InputError(
            f"{absent[0]} is not set; {COORDINATOR}=HOST:PORT, {COUNT}=N and {INDEX}=I go together"
        )
    host, _, port = given[COORDINATOR].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"{COORDINATOR}={given[COORDINATOR]!r} is not HOST:PORT")
    for name in (COUNT, INDEX):
        if not given[name].isdigit():
            raise InputError(f"{name}={given[name]!r} is no whole number")
    count, index = int(given[COUNT]), int(given[INDEX])
    if index >= count:
        raise InputError(
            f"{INDEX}={index}: the {count} processes have the numbers 0 to {count - 1}"
        )
    return Place(given[COORDINATOR], count, index)


def _detected() -> tuple[Place, list[int] | None] | None:
    from jax._src import cloud_tpu_init, clusters  # nothing public tells the count alone

    indexed = {"JOB_COMPLETION_INDEX", "KUBERNETES_SERVICE_HOST"} <= os.environ.keys()
    if indexed and importlib.util.find_spec("kubernetes") is None:
        raise InputError(
            "one pod of a Kubernetes Job, and how many there are only the `kubernetes` package "
            f"can ask: install jax[k8s], or set {COORDINATOR}, {COUNT} and {INDEX} "
            f"({COUNT}=1 for a run of one pod)"
        )
    for environment in clusters.ClusterEnv._cluster_types:
        # A pod without an index is none of several; JAX would ask for its Job and fail.
        lone = environment is clusters.K8sCluster and "JOB_COMPLETION_INDEX" not in os.environ
        if environment.opt_in_only_method or lone or not environment.is_env_present():
            continue
        count = environment.get_process_count()
        if count < 2:
            return None
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = environment.get_coordinator_address(int(barrier_seconds()), port)
        local = environment.get_local_process_id()
        # As JAX does it: one device for each process of a host, where a launcher counts them.
        alone = local is None or cloud_tpu_init.running_in_cloud_tpu_vm
        devices = None if alone or local is None else [local]
        return Place(address, count, environment.get_process_id()), devices
    return None
