"""The learner's /metrics page."""

import io
from pathlib import Path

from prometheus_client import CollectorRegistry

from learner.app import build
from learner.settings import LearnerSettings
from sealpool.client import LearnerClient
from sealpool.runtime.logs import make_logger
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import select, train
from tests.support.metrics_pages import documented, sampled


def test_every_documented_metric_is_on_the_page_of_a_learner_after_a_round(index: FakeIndex, tmp_path: Path) -> None:
    settings = LearnerSettings(
        listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", data_dir=tmp_path, device="cpu", grace_s=1
    )
    log = make_logger(settings, "learner", stream=io.StringIO())
    server = build(settings, registry=CollectorRegistry(), log=log, index=index)
    server.start()
    try:
        with LearnerClient(server.address) as client:
            train(client)
            select(client)
        missing = documented("learner") - sampled(server.metrics_address)
    finally:
        server.stop()
    # There is no sample without a GPU.
    assert missing - {f"sealpool_learner_gpu_memory_{what}" for what in ("bytes", "total_bytes")} == set()
