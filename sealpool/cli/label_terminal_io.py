"""The terminal under `sealpool label`: single keys where there is one, whole lines where there is none."""

import codecs
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Sequence
from typing import Protocol, Self, TextIO

from sealpool.cli.label_terminal_session import BACKSPACE, ENTER, ESCAPE
from sealpool.cli.output import clean

RESIZED = "resized"
_LOOK_EVERY_S = 0.5
_ALTERNATE, _BACK = "\x1b[?1049h", "\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Terminal(Protocol):
    """Where somebody looks and types; a context manager that leaves it as it was."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *error: object) -> None:
        """End, however it came to it."""
        ...

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        ...

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else."""
        ...

    def key(self, timeout_s: float) -> str | None:
        """Return the next key, or a whole line; "" at the end of the input, None after so long without one."""
        ...

    def line(self, prompt: str) -> str | None:
        """Return a line of text, or None if it was given up."""
        ...


class RawTerminal:
    """A terminal read key by key. Ctrl-C works as ever; what it was like before is restored in any case."""

    def __init__(self, source: TextIO, target: TextIO) -> None:
        self._file = source.fileno()
        self._target = target
        self._before = termios.tcgetattr(self._file)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._keys: list[str] = []
        self._shown: Sequence[str] = ()
        self._size = self.size()

    def __enter__(self) -> Self:
        try:
            tty.setcbreak(self._file)
            changed = termios.tcgetattr(self._file)
            changed[6][termios.VSUSP] = b"\0"  # stopped by Ctrl-Z, it would leave the terminal without echo
            termios.tcsetattr(self._file, termios.TCSADRAIN, changed)
            self._write(_ALTERNATE)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        columns, rows = shutil.get_terminal_size()
        return columns, rows

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else, without a flicker."""
        self._shown = lines
        self._size = self.size()
        kept = lines[: self._size[1]]
        self._write(_HOME + "\r\n".join(line + _CLEAR_LINE for line in kept) + _CLEAR_REST)

    def key(self, timeout_s: float) -> str | None:
        """Return the next key, RESIZED, "" at the end of the input, or None after so long without one."""
        left = timeout_s
        while not self._keys:
            ready, _, _ = select.select([self._file], [], [], min(left, _LOOK_EVERY_S))
            if ready:
                content = os.read(self._file, 1024)
                if not content:
                    return ""
                self._keys = _keys(self._decoder.decode(content))
            elif self.size() != self._size:
                return RESIZED
            elif (left := left - _LOOK_EVERY_S) <= 0:
                return None
        return self._keys.pop(0)

    def line(self, prompt: str) -> str | None:
        """Return a line of text, or None where Esc gave it up."""
        text = ""
        while True:
            self._write(f"\r{prompt}{clean(text, lines=False)}{_CLEAR_LINE}")
            key = self.key(3600.0)
            if key == ENTER:
                return text
            if key in (ESCAPE, ""):
                return None
            if key == BACKSPACE:
                text = text[:-1]
            elif key is not None and key != RESIZED and key.isprintable():
                text += key

    def _write(self, text: str) -> None:
        self._target.write(text)
        self._target.flush()

    def _restore(self) -> None:
        try:
            self._write(_BACK)
        finally:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)


class LineTerminal:
    """A pipe or a file in place of a terminal: a line is a key, the name of a class, or c and a comment."""

    def __init__(self, source: TextIO, target: TextIO) -> None:
        self._source = source
        self._target = target

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._target.flush()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        return 100, 40

    def show(self, lines: Sequence[str]) -> None:
        """Print the lines."""
        self._target.write("".join(f"{line}\n" for line in lines))
        self._target.flush()

    def key(self, timeout_s: float) -> str | None:  # noqa: ARG002 - whoever writes to a pipe does not wait
        """Return the next line; an empty one is Enter, the end of the input "q"."""
        line = self._source.readline()
        return (line.strip() or ENTER) if line else ""

    def line(self, prompt: str) -> str | None:
        """Return the next line."""
        self._target.write(f"{prompt}\n")
        line = self._source.readline()
        return line.strip() if line else None


def open_terminal() -> Terminal:
    """Return the terminal of this process, or what stands in for it."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return RawTerminal(sys.stdin, sys.stdout)
    return LineTerminal(sys.stdin, sys.stdout)


def _keys(text: str) -> list[str]:
    """Return the keys in what was read: sequences of other keys, such as arrows, are passed over."""
    found: list[str] = []
    rest = text.replace("\r", ENTER).replace("\b", BACKSPACE)
    while rest:
        if rest[0] == ESCAPE and rest[1:2] in ("[", "O"):
            end = next((place for place, letter in enumerate(rest[2:], 2) if letter.isalpha() or letter == "~"), 1)
            rest = rest[end + 1 :]
            continue
        found.append(rest[0])
        rest = rest[1:]
    return found
