"""One real service: with no collector, one that takes nothing, one that is away, and without the packages."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from sealpool.client import ClientOptions, IndexClient
from sealpool.client.tracing import client_tracer
from sealpool.errors import FailedPrecondition
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tracing import MISSING
from tests.support.processes import ServiceProcess, free_port
from tests.support.trace_collector import TraceCollector

CALLS_OF_ALL_THREE = """
import io, json, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
import learner.app, scheduler.app
from index_server.app import build
from index_server.settings import IndexServerSettings
from sealpool.client import IndexClient
from sealpool.runtime.logs import make_logger
settings = IndexServerSettings(listen="127.0.0.1:0", metrics_listen="", data_dir=Path(sys.argv[1]))
server = build(settings, registry=CollectorRegistry(), log=make_logger(settings, "index_server", stream=io.StringIO()))
with IndexClient(server.address) as client:
    client.list_pools()
server.stop()
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""

START_WITHOUT_PACKAGES = """
import sys
sys.modules["opentelemetry"] = None
from index_server.app import main
main(["--listen=127.0.0.1:0", "--metrics-listen=", "--data-dir", sys.argv[1], "--trace-endpoint=127.0.0.1:4317"])
"""


def python(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)


@contextmanager
def index_server(folder: Path, *flags: str) -> Iterator[ServiceProcess]:
    service = ServiceProcess("index_server", folder, *flags)
    try:
        service.start()
        yield service
    finally:
        service.kill()


def call(service: ServiceProcess, *, times: int = 1, options: ClientOptions | None = None) -> None:
    with IndexClient(service.address, options=options) as client:
        for _ in range(times):
            client.list_pools()


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    ended = python(CALLS_OF_ALL_THREE, str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []


def test_without_the_packages_a_start_ends_with_what_to_install(tmp_path: Path) -> None:
    ended = python(START_WITHOUT_PACKAGES, str(tmp_path))
    assert ended.returncode == 1
    assert MISSING in ended.stderr
    assert "pip install 'sealpool[tracing]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_the_packages_a_clients_tracer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sealpool.runtime.tracing_opentelemetry", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'sealpool\[tracing\]'"):
        client_tracer(TracerProvider(shutdown_on_exit=False))


def test_of_a_share_of_0_only_what_a_caller_traces_is_sent(tmp_path: Path) -> None:
    with TraceCollector() as collector:
        flags = ("--trace-endpoint", f"http://{collector.address}", "--trace-sample-share", "0")
        with index_server(tmp_path, *flags) as service:
            call(service, times=3)
            call(service, options=ClientOptions(tracer=client_tracer(TracerProvider(shutdown_on_exit=False))))
            assert service.stop() == 0
        (only,) = collector.spans()
    assert only.name == "/sealpool.v1.IndexService/ListPools"
    assert only.span.parent_span_id


def test_a_collector_that_is_away_breaks_no_call_and_does_not_hold_the_stop_up(tmp_path: Path) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    with index_server(tmp_path, "--trace-endpoint", endpoint) as service:
        call(service, times=600)  # more than a batch, so that sending has begun
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    # Said after 2 s: what the SDK itself would wait for has another end.
    (lost,) = [line for line in lines if line["event"].startswith("traces lost")]
    assert lost["trace_endpoint"] == endpoint
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("endpoint", ["localhost", "ftp://host:1", "host:4317/v1/traces", "user:x@host:4317", ":1"])
def test_an_endpoint_that_is_none_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(ValueError, match="trace_endpoint"):
        ServiceSettings(trace_endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["", "collector:4317", "https://collector.example.org:443", "[::1]:4317"])
def test_an_endpoint_is_a_host_and_a_port_with_or_without_tls(endpoint: str) -> None:
    assert ServiceSettings(trace_endpoint=endpoint).trace_endpoint == endpoint
