"""How full the disk and the memory are, as exported."""

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from index_server.metrics import FillCollector
from index_server.store.watermarks import Watermarks

DISK, MEMORY = "sealpool_index_server_disk_used_ratio", "sealpool_index_server_memory_used_ratio"


def exported(tmp_path: Path, **given: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    looks = {"disk_share": lambda _: 0.5, "memory_bytes": lambda: 300, "memory_limit_bytes": 400, **given}
    registry.register(FillCollector(Watermarks(tmp_path, disk_throttle_share=0.9, disk_refuse_share=0.95, **looks)))
    return registry


def test_disk_and_memory_are_told_as_shares(tmp_path: Path) -> None:
    registry = exported(tmp_path)
    assert registry.get_sample_value(DISK) == 0.5
    assert registry.get_sample_value(MEMORY) == 0.75


def test_memory_without_a_limit_has_no_share(tmp_path: Path) -> None:
    registry = exported(tmp_path, memory_limit_bytes=0)
    assert registry.get_sample_value(DISK) == 0.5
    assert registry.get_sample_value(MEMORY) is None


def test_a_disk_that_does_not_answer_leaves_the_other_metrics_be(tmp_path: Path) -> None:
    def gone(_: Path) -> float:
        raise OSError("no such device")

    registry = exported(tmp_path, disk_share=gone)
    assert registry.get_sample_value(DISK) is None
