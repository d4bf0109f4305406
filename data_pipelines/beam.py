"""Work spread by Apache Beam: Flink, Spark, Dataflow, or processes of this machine (DirectRunner).

Workers and the caller see one file system. What a job is and what it gives lie in a folder there,
so that a pipeline holds only numbers, however many windows there are. Needs the `beam` extra.
"""

import logging
import os
import pathlib
import pickle
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from data_pipelines.workers import Spread
from nt_jax.errors import InputError

_POLL_SECONDS = 0.2
_QUIET = "--default_sdk_harness_log_level=ERROR"
_STOP = "stop"


def on_beam(options: str, scratch: str | os.PathLike[str]) -> Spread:
    """Spreads work over the workers of a Beam runner.

    Args:
        options: pipeline options, as Beam's own documentation of the runner has them, such as
            `--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2`.
        scratch: folder that every worker sees; it is created, and removed at the end.

    Raises InputError when Beam is not installed or does not know an option. What a job raises is
    raised here.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise InputError(
            "--beam: Apache Beam is not installed; pip install 'nt-jax[beam]'"
        ) from None
    # Its workers would tell of every step.
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    words = shlex.split(options)
    parsed = PipelineOptions([_QUIET, *words])
    unknown = [word for word in words if word.startswith("--") and not _known(parsed, word)]
    if unknown:
        raise InputError(f"--beam: no pipeline option of Apache Beam is named {unknown[0]}")
    folder = pathlib.Path(scratch).absolute()
    return lambda function, jobs: _spread(function, jobs, parsed, folder)


def _known(parsed: Any, word: str) -> bool:
    name = word.lstrip("-").partition("=")[0].removeprefix("no_")
    return name in parsed.get_all_options()


def _spread(
    function: Callable[..., Any],
    jobs: Iterable[tuple[Any, ...]],
    options: Any,
    folder: pathlib.Path,
) -> Iterator[Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        waiting = set()
        for number, job in enumerate(jobs):
            (folder / f"{number}.job").write_bytes(pickle.dumps((function, job)))
            waiting.add(number)
        if not waiting:
            return
        failures: list[BaseException] = []
        pipeline = threading.Thread(
            target=_run, args=(options, folder, len(waiting), failures), daemon=True
        )
        pipeline.start()
        while waiting:
            ended = not pipeline.is_alive()
            finished = [number for number in waiting if (folder / f"{number}.result").exists()]
            for number in finished:
                waiting.discard(number)
                result = pickle.loads((folder / f"{number}.result").read_bytes())
                if isinstance(result, _Failed):
                    (folder / _STOP).touch()
                    pipeline.join()
                    raise result.error
                yield result
            if ended and not finished:
                break
            time.sleep(_POLL_SECONDS if not finished else 0)
        pipeline.join()
        if failures:
            raise failures[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(options: Any, folder: pathlib.Path, count: int, failures: list[BaseException]) -> None:
    import apache_beam as beam

    try:
        with beam.Pipeline(options=options) as pipeline:
            (pipeline | beam.Create(range(count)) | beam.Reshuffle() | beam.Map(_work, str(folder)))
    except BaseException as error:
        failures.append(error)


class _Failed:
    """Stands in the place of a result."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _work(number: int, folder: str) -> None:
    """Does one job; a runner may do it again, and the last result stays."""
    where = pathlib.Path(folder)
    if (where / _STOP).exists():
        return
    function, job = pickle.loads((where / f"{number}.job").read_bytes())
    try:
        result = function(*job)
    except (InputError, OSError) as error:
        # Trying again, as runners do, would not help.
        result = _Failed(error)
    temporary = where / f"{number}.{os.getpid()}"
    temporary.write_bytes(pickle.dumps(result))
    temporary.rename(where / f"{number}.result")
