"""Messages of a stream taken together as they arrive."""

import queue
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Stands after the last message."""


_END = _End()


def gathered(messages: Iterator[T], *, most: int, wait_s: float) -> Generator[list[T]]:
    """Yield what has arrived, in order, up to `most` messages at a time.

    The first is waited for, and after it further ones for `wait_s` in all. At most twice as many messages are held.
    What reading them raises is raised after those that came before it. A thread reads; it ends with the messages, or
    at the next one after the generator was closed.
    """
    arrived: queue.Queue[T | _End] = queue.Queue(maxsize=max(most, 2))
    closed = threading.Event()

    def read() -> None:
        try:
            for message in messages:
                arrived.put(message)
                if closed.is_set():
                    return
        finally:
            arrived.put(_END)

    executor = ThreadPoolExecutor(1, thread_name_prefix="stream reader")
    reading = executor.submit(read)
    try:
        while True:
            group, ended = _take(arrived, most, wait_s)
            if group:
                yield group
            if ended:
                reading.result()
                return
    finally:
        closed.set()
        _empty(arrived)  # the reader may wait for room
        executor.shutdown(wait=False)


def _take(arrived: "queue.Queue[T | _End]", most: int, wait_s: float) -> tuple[list[T], bool]:
    group: list[T] = []
    message = arrived.get()
    until = time.monotonic() + wait_s
    while not isinstance(message, _End):
        group.append(message)
        if len(group) == most:
            return group, False
        try:
            message = arrived.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return group, False
    return group, True


def _empty(arrived: "queue.Queue[T | _End]") -> None:
    while True:
        try:
            arrived.get_nowait()
        except queue.Empty:
            return
