"""Work spread over processes. What a worker writes has a temporary name until it is complete."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

TEMPORARY = "part-"
"""Prefix of files and folders that are not complete."""

_Result = TypeVar("_Result")


def spread(
    function: Callable[..., _Result], jobs: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[_Result]:
    """Results of the function for the arguments of each job, in any order.

    At most two jobs a worker wait in memory; one worker is this process itself.
    """
    if workers <= 1:
        for job in jobs:
            yield function(*job)
        return
    # Spawn: forking a process that has started threads (JAX, ArrayRecord) can hang it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=die_with_parent
    ) as pool:
        waiting: set[concurrent.futures.Future[_Result]] = set()
        for job in jobs:
            waiting.add(pool.submit(function, *job))
            if len(waiting) >= 2 * workers:
                done, waiting = concurrent.futures.wait(
                    waiting, return_when=concurrent.futures.FIRST_COMPLETED
                )
                yield from (future.result() for future in done)
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()


def die_with_parent() -> None:
    """Ends this worker process when its parent ends; else it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
