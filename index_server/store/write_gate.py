"""Who is writing files that nothing names yet."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sealpool.errors import Unavailable


class WriteGate:
    """Lets many write at once, and files that nobody names be removed only while none does.

    Lance chooses the names of the files that it writes and tells them at the end, so what is there and not named is an
    orphan for certain only then.

    Parameters
    ----------
    remove_orphans
        Removes every file that nothing names.
    """

    def __init__(self, remove_orphans: Callable[[], None]) -> None:
        self._remove_orphans = remove_orphans
        self._changed = threading.Condition()
        self._writers = 0
        self._failed = False
        self._closed = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write files, and name them before the end. After an error those that are not named are removed.

        Raises
        ------
        Unavailable
            The store is closed.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the pool is being closed", field="pool")
            self._writers += 1
        done = False
        try:
            yield
            done = True
        finally:
            self._leave(done)

    @contextmanager
    def removing(self) -> Iterator[bool]:
        """Say whether files may be removed, which they may not once the store is closed; it is not closed meanwhile."""
        with self._changed:
            yield not self._closed

    def close(self) -> None:
        """Let nobody write from now on; return when those who do are done."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._writers == 0)

    def shut(self) -> None:
        """Let nobody write or remove from now on, and do not wait."""
        with self._changed:
            self._closed = True

    def _leave(self, done: bool) -> None:
        with self._changed:
            self._writers -= 1
            self._failed |= not done
            self._changed.notify_all()
            if self._failed and not self._writers and not self._closed:
                self._failed = False
                self._remove_orphans()
