"""The scheduler, killed with SIGKILL between a language model's answer and its label, pays for no question twice."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealpool.client import ClientOptions, SchedulerClient
from sealpool.v1 import scheduler_pb2
from tests.crash.scheduler.services_behind import services_behind
from tests.support.language_model import KEY, LanguageModelServer, says
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import make_spec

SPEC = make_spec(oracle=scheduler_pb2.OracleSpec(name="llm", llm=scheduler_pb2.LlmSpec(model="m", samples=2)))


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[FakeIndex, str]]:
    with services_behind() as served:
        yield served


def drive(process: ServiceProcess) -> list[scheduler_pb2.Label]:
    with SchedulerClient(process.address, options=ClientOptions(retry_for_s=60, timeout_s=60)) as client:
        client.create_campaign(SPEC)
        while client.run_round("c").campaign_state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            continue
        return list(client.list_labels("c"))


@pytest.mark.parametrize("point", ["scheduler.llm.after_answer:5", "scheduler.oracle.before_commit:3"])
def test_no_question_is_paid_for_twice(point: str, tmp_path: Path, behind: tuple[FakeIndex, str]) -> None:
    def answer(body: Mapping[str, object]) -> str:
        return says("ab"[int(re.findall(r"text (\d+)", json.dumps(body["messages"]))[-1]) % 2])

    (tmp_path / "key").write_text(KEY)
    endpoints = tmp_path / "endpoints.yaml"
    address = behind[1]
    flags = ["--index-server", address, "--learner", address, "--resume-every-s", "0.5", "--retry-for-s", "5"]
    with LanguageModelServer(answer) as model:
        endpoints.write_text(
            json.dumps({"default": {"base_url": model.url, "api_key_file": "key", "max_concurrency": 1}})
        )
        process = ServiceProcess("scheduler", tmp_path, *flags, "--llm-endpoints", str(endpoints))
        process.start(failpoint=point)
        try:
            with ThreadPoolExecutor(1) as pool:
                driving = pool.submit(drive, process)
                process.wait_until_killed()
                process.start()
                labels = driving.result(60)
            assert process.stop() == 0
        finally:
            process.kill()
        assert len({label.item_id for label in labels}) == len(labels) == 20
        asked = [json.dumps(body["messages"]) for body in model.requests]
        assert len(asked) == 2 * len(set(asked)) == 40
        assert all(KEY not in log.read_text(errors="replace") for log in tmp_path.rglob("*.log"))
