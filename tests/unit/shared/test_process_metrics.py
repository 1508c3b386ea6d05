"""What every service exports of its process."""

import os
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry

from sealpool.runtime.metrics import ProcessMetrics


@pytest.mark.parametrize("service", ["index_server", "learner", "scheduler"])
def test_a_service_says_which_version_runs(service: str) -> None:
    registry = CollectorRegistry()
    ProcessMetrics(service, registry)
    labels = {"version": version("sealpool")}
    assert registry.get_sample_value(f"sealpool_{service}_build_info", labels) == 1


def test_the_process_tells_its_memory_and_its_open_files() -> None:
    registry = CollectorRegistry()
    ProcessMetrics("learner", registry)
    open_files = registry.get_sample_value("process_open_fds")
    assert open_files is not None
    assert 0 < open_files <= os.sysconf("SC_OPEN_MAX")
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 1_000_000
