"""What README tells a stranger to type does what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sealpool.cli.demo_embed import default_encoder
from sealpool.client import SchedulerClient
from tests.support.processes import Stack

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, holding: str) -> str:
    """Return the first code block of README in `language` that holds a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if holding in text)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("readme"))
    try:
        stack.start()
        yield stack
    finally:
        stack.kill()


def run(command: list[str], stack: Stack, folder: Path, typed: str = "") -> str:
    environment = {
        **os.environ,
        "SEALPOOL_INDEX": stack.index.address,
        "SEALPOOL_LEARNER": stack.learner.address,
        "SEALPOOL_SCHEDULER": stack.scheduler.address,
    }
    done = subprocess.run(
        command, env=environment, cwd=folder, input=typed, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_python_example_runs_a_round(stack: Stack, tmp_path: Path) -> None:
    example = block("python", "IndexClient")
    for port, service in ((7301, stack.index), (7302, stack.learner), (7303, stack.scheduler)):
        example = example.replace(f"127.0.0.1:{port}", service.address)
    said = run([sys.executable, "-c", example], stack, tmp_path)
    assert re.fullmatch(r"round 1: 20 labels, \d+ candidates, 20 picks\n", said)


def test_the_session_in_the_terminal_labels_two_batches(stack: Stack, tmp_path: Path) -> None:
    encoder = default_encoder()
    write_mails(tmp_path / "mails.jsonl")
    for line in block("sh", "pool ingest").splitlines()[1:]:
        command = shlex.split(line.replace("path/to/encoder", encoder), comments=True)
        assert command[0] == "sealpool"
        typed = "1\n2\n" * 10 if command[1] == "label" else ""
        run([sys.executable, "-m", "sealpool.cli.main", *command[1:]], stack, tmp_path, typed)
    assert "spam" in (tmp_path / "spam.html").read_text()
    with SchedulerClient(stack.scheduler.address) as scheduler:
        campaign = scheduler.get_campaign("spam")
    assert campaign.last_round.number == 1
    assert campaign.last_round.picks == 20
    assert campaign.labels == 20
    assert (campaign.open_tasks, campaign.leased_tasks) == (20, 0)
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == campaign.labels + 1


def test_what_is_asked_with_grpcurl_is_there_to_be_asked(stack: Stack) -> None:
    services = {7301: stack.index, 7302: stack.learner, 7303: stack.scheduler}
    calls = re.findall(r"127\.0\.0\.1:(\d+) ([\w.]+)(?:/(\w+))?(?: ([\w.]+))?", block("sh", "grpcurl"))
    assert len(calls) >= 5
    for port, word, method, described in calls:
        with grpc.insecure_channel(services[int(port)].address) as channel:
            reflected = ProtoReflectionDescriptorDatabase(channel)
            if word == "list":
                assert "sealpool.v1.SchedulerService" in reflected.get_services()
                continue
            name = described or word
            file = reflected.FindFileContainingSymbol(name)
            service = next(one for one in file.service if f"{file.package}.{one.name}" == name)
            assert not method or method in {one.name for one in service.method}


def write_mails(path: Path) -> None:
    words = ["free", "meeting"]
    rows = [{"id": f"mail-{n}", "text": f"{words[n % 2]} number {n} for you"} for n in range(150)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
