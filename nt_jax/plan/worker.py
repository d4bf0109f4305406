"""The process that compiles: reads FOLDER/request.json, writes result.json and program.hlo.

Run by `nt_jax.plan.compiler` with an environment of its own. With `"topology": null` it compiles
for the devices of this machine, runs some steps on them and measures.
"""

import json
import math
import pathlib
import re
import sys
import time
from typing import Any

_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main(folder: pathlib.Path) -> None:
    """Does what the request says."""
    request = json.loads((folder / "request.json").read_text())
    from nt_jax.errors import InputError

    try:
        result = _run(request, folder)
    except InputError as error:
        result = {"input_error": str(error)}
    (folder / "result.json").write_text(json.dumps(result))


def _run(request: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    import jax

    from nt_jax import config, program
    from nt_jax.errors import InputError

    jax.config.update("jax_threefry_partitionable", True)
    # What is compiled for planning must not come from, or go to, the cache of real runs.
    jax.config.update("jax_enable_compilation_cache", False)
    experiment = config.from_dict(config.Experiment, request["experiment"])
    if request["topology"] is None:
        devices = list(jax.devices())
    else:
        from jax.experimental import topologies

        try:
            devices = list(topologies.get_topology_desc(**request["topology"]).devices)
        except Exception as error:
            name = request["topology"]["topology_name"]
            raise InputError(f"libtpu does not know {name}: {error}") from error
    built = program.build(experiment, devices)
    start = time.process_time()
    tokens = program.abstract_tokens(built, experiment)
    lowered = built.train_step.lower(built.abstract, tokens)
    # Where the compiler gives up, it does not say what the state takes.
    arguments = sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves((built.abstract, tokens))
    )
    # libtpu writes programs that the text reader of jaxlib, which is another version, refuses.
    dump = {"xla_dump_to": str(folder / "dump"), "xla_dump_hlo_as_text": True}
    try:
        compiled = lowered.compile(compiler_options=dump if request["topology"] else None)
    except jax.errors.JaxRuntimeError as error:
        needed = too_large(str(error))
        if needed is None:
            raise
        seconds = time.process_time() - start
        return _record(built, seconds, needed=needed[0], available=needed[1], arguments=arguments)
    seconds = time.process_time() - start
    memory = compiled.memory_analysis()
    (folder / "program.hlo").write_text(_text(compiled, folder / "dump"))
    record = _record(
        built,
        seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=_temporaries(memory, folder / "dump"),
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
    )
    if request["topology"] is None:
        from nt_jax.plan import measure

        record["device"] = device = measure.device(experiment.model.compute_dtype)
        taken = record["arguments"] + record["temporaries"] + record["code"]
        taken *= device["count"] if device["platform"] == "cpu" else 1
        fits = taken < device["memory_bytes"]
        steps = request["steps"]
        record["measured"] = measure.run(built, compiled, experiment, steps) if fits else None
    return record


def _text(compiled: Any, dump: pathlib.Path) -> str:
    """The program as it runs, from the compiler's own file where it has written one."""
    written = list(dump.glob("*train_step*.after_codegen.txt"))
    return written[0].read_text() if written else compiled.as_text()


def _temporaries(memory: Any, dump: pathlib.Path) -> int:
    """Bytes beside arguments and results, from the compiler's own report where it has written one.

    What JAX says of TPU programs (temp_size_in_bytes) is more than libtpu sets aside, and more
    than the limit in programs that libtpu holds to be within it: 32.0 GiB for 24.7 once.
    """
    written = list(dump.glob("*train_step*after_optimizations-memory-usage-report.txt"))
    if not written:
        return memory.temp_size_in_bytes
    found = re.search(r"\(color=0\)\nTotal bytes: (\d+)", written[0].read_text())
    if not found:
        raise RuntimeError(f"{written[0].name} says no total")
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(found[1]) - memory.argument_size_in_bytes - results


def _record(built: Any, seconds: float, **numbers: Any) -> dict[str, Any]:
    sizes = {"arguments": 0, "temporaries": 0, "outputs": 0, "aliased": 0, "code": 0}
    return {
        "seconds": seconds,
        "mesh": dict(built.mesh.shape),
        **sizes,
        "needed": None,
        "available": None,
        **numbers,
    }


def too_large(message: str) -> tuple[float, float] | None:
    """(needed, available) bytes of a compiler that gave up; None for any other failure."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message)
    if not found:
        found = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message)
    if not found:
        return None
    return float(found[1]) * _SIZES[found[2]], float(found[3]) * _SIZES[found[4]]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
