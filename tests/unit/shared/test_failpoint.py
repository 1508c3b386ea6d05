"""Failpoints kill where they are told to, and nowhere else."""

import multiprocessing
import signal

import pytest

from sealpool import failpoint


def _reach(armed: str, names: list[str]) -> None:
    import os

    os.environ["SEALPOOL_FAILPOINT"] = armed
    for name in names:
        failpoint.reach(name)


@pytest.mark.parametrize(
    ("armed", "names", "killed"),
    [
        ("a", ["a"], True),
        ("a", ["b", "c"], False),
        ("a:2", ["a", "b"], False),
        ("a:2", ["a", "b", "a"], True),
    ],
)
def test_the_process_dies_at_the_named_point(armed: str, names: list[str], killed: bool) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_reach, args=(armed, names))
    child.start()
    child.join(20)
    assert child.exitcode == (-signal.SIGKILL if killed else 0)


def test_without_the_variable_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEALPOOL_FAILPOINT", raising=False)
    failpoint.reach("a")
