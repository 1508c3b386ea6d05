"""The memory that a container may take."""

from pathlib import Path

import pytest
import torch

from learner.device import memory_bytes
from sealpool.runtime.control_group import memory_limit


@pytest.mark.parametrize(("content", "limit"), [("6442450944\n", 6 << 30), ("max\n", 0)])
def test_a_limit_is_read_and_none_is_zero(tmp_path: Path, content: str, limit: int) -> None:
    (tmp_path / "memory.max").write_text(content)
    assert memory_limit(file=tmp_path / "memory.max") == limit


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(file=tmp_path / "memory.max") == 0


def test_a_learner_counts_with_what_its_container_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("sealpool.runtime.control_group.memory_limit", lambda: 0)
    machine = memory_bytes(cpu)
    monkeypatch.setattr("sealpool.runtime.control_group.memory_limit", lambda: machine // 3)
    assert memory_bytes(cpu) == machine // 3
    monkeypatch.setattr("sealpool.runtime.control_group.memory_limit", lambda: 3 * machine)
    assert memory_bytes(cpu) == machine
