"""Work spread over processes. What a worker writes has a temporary name until it is complete."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

TEMPORARY = "part-"
"""Prefix of files and folders that are not complete."""

Spread = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]
"""(function, jobs) -> the results of the function for the arguments of each job, in any order."""
Progress = Callable[[int, int, str], None]
"""Called with (done, in all, what is being done); 0 in all while the end is unknown."""


def processes(workers: int) -> Spread:
    """Spreads work over so many processes of this machine; one is this process itself.

    At most two jobs a worker wait in memory.
    """
    return _in_turn if workers <= 1 else lambda function, jobs: _pool(function, jobs, workers)


def _in_turn(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    for job in jobs:
        yield function(*job)


def _pool(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[Any]:
    # Spawn: forking a process that has started threads (JAX, ArrayRecord) can hang it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=die_with_parent
    ) as pool:
        waiting: set[concurrent.futures.Future[Any]] = set()
        try:
            for job in jobs:
                waiting.add(pool.submit(function, *job))
                if len(waiting) >= 2 * workers:
                    done, waiting = concurrent.futures.wait(
                        waiting, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    yield from (future.result() for future in done)
            for future in concurrent.futures.as_completed(waiting):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def die_with_parent() -> None:
    """Ends this worker process when its parent ends; else it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
