"""The first use of transformers, in a process of its own, and what it asks the network."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition
from tests.support.processes import ServiceProcess

FIRST_USES = """
import sys
import threading
import structlog
import torch
from learner.encoders import Encoders
from learner.models.text.tokens import load_local
from sealpool.errors import FailedPrecondition

log = structlog.wrap_logger(structlog.ReturnLogger())
encoders = Encoders(torch.device("cpu"), keep=1, batch_tokens=1, allow_download=False, log=log)
ready, said = threading.Barrier(2), []

def use(load) -> None:
    ready.wait()
    try:
        load(sys.argv[1])
    except FailedPrecondition:
        said.append("refused")
    except ImportError as error:
        said.append(str(error))

threads = [threading.Thread(target=use, args=(load,)) for load in (encoders.get, load_local)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*said)
"""


def test_an_embedding_and_a_training_may_need_transformers_first_at_the_same_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_USES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "refused refused\n"


class Hub(BaseHTTPRequestHandler):
    """Knows no model, and writes down what it was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_learner_without_leave_to_download_asks_the_hub_nothing(
    tmp_path: Path, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    learner = ServiceProcess("learner", tmp_path, "--device", "cpu")
    learner.start()
    try:
        with LearnerClient(learner.address) as client, pytest.raises(FailedPrecondition, match="not in the learner's"):
            list(client.embed(["a"], encoder="no-such/encoder"))
    finally:
        learner.kill()
        learner.wait_until_killed()
    assert Hub.asked == []
