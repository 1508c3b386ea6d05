"""Ours beside a peer: both in turn in one run, and rows of both and of their ratio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.learner.workbench import Workbench
from benchmarks.report import Figure, at_least
from benchmarks.statistics import median, side_by_side

Work = Callable[[int], object]


class PeerMissingError(Exception):
    """A peer is not installed. The message is what the table says."""


def peer_module(name: str, package: str) -> Any:
    """Return a peer's module, PeerMissingError where its package is not installed.

    It is imported here, because the peers ship no types and none of them is needed to measure ourselves.
    """
    if find_spec(name.partition(".")[0]) is None:
        raise PeerMissingError(f"{package} is not installed")
    return import_module(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Another library that does the same.

    Parameters
    ----------
    make
        Returns what is timed, or raises PeerMissingError.
    repetitions
        How often both are run; both are warmed up unless it is 1, for what takes minutes.
    bound
        How many times as long as ours it is to take, at least, at full size.
    """

    name: str
    make: Callable[[], Work]
    repetitions: int
    bound: float | None = None


def add_beside(bench: Workbench, figure: Figure, subject: str, ours: Work, peers: Sequence[Peer]) -> None:
    """Add rows of each peer, and of ours beside it."""
    for peer in peers:
        what = f"{subject}, {peer.name}"
        try:
            theirs = peer.make()
            ours(-1)
            times = side_by_side(
                {"ours": ours, "theirs": theirs}, repetitions=peer.repetitions, warm_ups=int(peer.repetitions > 1)
            )
        except PeerMissingError as error:
            figure.skip(what, str(error))
        except MemoryError:
            figure.skip(what, "it ran out of memory")
        else:
            us, them = median(times["ours"]), median(times["theirs"])
            figure.add(f"{what} (of {peer.repetitions})", them, "s")
            figure.add(f"{subject}, ours beside it", us, "s")
            target = None if peer.bound is None else bench.at_full_size(at_least(peer.bound))
            figure.add(f"{what} / ours", them / us, "×", target)
