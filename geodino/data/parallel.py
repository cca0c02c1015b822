"""Work done by threads, its results taken in the order of its input."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

FAR_THREADS = 16
"""Threads that read over a network: they wait for answers, so cores do not limit them."""

_AHEAD = 4
"""Items in flight per thread: enough to keep threads busy, few enough to bound memory."""


def in_order(
    fn: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int = 0
) -> Generator[R, None, None]:
    """Yield ``fn(item)`` for every item, in order, computed by threads some items ahead.

    As many items are in flight as keep the threads busy, or ``ahead`` if that is more: what a
    consumer takes at once should be ready when it comes back.

    The first exception is raised where its result would come; later work is dropped. Closing the
    generator waits for the work in hand.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="geodino-read") as executor:
        waiting: deque[Future[R]] = deque(
            executor.submit(fn, item) for item in islice(iterator, max(_AHEAD * threads, ahead))
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                for item in islice(iterator, 1):
                    waiting.append(executor.submit(fn, item))
                yield result
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def thread_count(threads: int | str, *, far: bool = False) -> int:
    """Return ``threads``, or for ``auto`` what suits the source.

    That is one per core this process may use, at most 16; or ``FAR_THREADS`` where a file of the
    source lies behind a network (``far``).
    """
    if isinstance(threads, int):
        return threads
    if far:
        return FAR_THREADS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(16, cores or 1)
