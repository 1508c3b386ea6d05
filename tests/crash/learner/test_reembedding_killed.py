"""A re-embedding killed at its worst moments goes on where it was, and embeds no more than a batch again."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sealpool.client import IndexClient
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import index_pb2
from tests.support.processes import ServiceProcess

ITEMS, BATCH = 30, 8


def texts() -> dict[str, str]:
    return {f"i{n:02}": f"{'abcdefg'[n % 7]} {'abcdefg'[n // 7]}" for n in range(ITEMS)}


@pytest.fixture(scope="module")
def index_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real index server."""
    server = ServiceProcess("index_server", tmp_path_factory.mktemp("index"))
    server.start()
    yield server.address
    server.kill()


def run_job(folder: Path, index_address: str, *, name: str, failpoint: str = "") -> int:
    """Resume, start and watch the job in a process of its own; return its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("SEALPOOL_FAILPOINT", None)
    if failpoint:
        environment["SEALPOOL_FAILPOINT"] = failpoint
    command = [sys.executable, __file__, str(folder), index_address, name]
    return subprocess.run(command, env=environment, timeout=120, check=False).returncode


@pytest.mark.parametrize(
    "point",
    [
        "learner.reembed.before_upsert:2",
        "learner.reembed.after_upsert:2",
        "learner.reembed.before_alias",
        "learner.reembed.before_finished",
    ],
)
def test_a_killed_job_ends_and_embeds_at_most_a_batch_again(tmp_path: Path, index_address: str, point: str) -> None:
    name = point.rpartition(".")[2].replace(":", "-")
    with IndexClient(index_address) as client:
        client.create_pool(index_pb2.PoolSpec(name=f"{name}-old", dimension=2))
        ids = [ItemId(item_id) for item_id in texts()]
        payloads = [Payload(text=text) for text in texts().values()]
        vectors = np.ones((ITEMS, 2), np.float32)
        client.upsert(f"{name}-old", Items(ids=ids, vectors=vectors, payloads=payloads))
        client.set_alias(f"{name}-live", f"{name}-old")

        assert run_job(tmp_path, index_address, name=name, failpoint=point) == -signal.SIGKILL
        before = client.get_pool(f"{name}-new").size
        assert before == {"before_upsert-2": BATCH, "after_upsert-2": 2 * BATCH}.get(name, ITEMS)
        assert run_job(tmp_path, index_address, name=name) == 0

        pool = client.get_pool(f"{name}-live")
        assert (pool.spec.name, pool.size, pool.spec.dimension) == (f"{name}-new", ITEMS, 8)
        items = client.get_items(f"{name}-new", ids, payloads=True)
        assert [payload.text for payload in items.payloads or ()] == list(texts().values())
    embedded = Counter((tmp_path / "embedded.txt").read_text().splitlines())
    assert set(embedded) == set(texts().values())
    again = sum(embedded.values()) - ITEMS
    assert again == (BATCH if "before_upsert" in point else 0)


def _classifier_of(_campaign: str, _round: int) -> object:
    """Return a classifier with a small encoder that needs no transformers, whose import takes longer than the test."""
    import torch

    class Tokenizer:
        pad_token, pad_token_id, model_max_length = "~", 126, 16

        def __call__(self, some, *, max_length: int, **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [list(text.encode()[:max_length]) for text in some]}

    class Model(torch.nn.Module):
        config = SimpleNamespace(hidden_size=8, max_position_embeddings=16)

        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(127, 8)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=self.table(input_ids))

    torch.manual_seed(0)
    return SimpleNamespace(encoder=lambda: (Tokenizer(), Model()))


def _child(folder: str, index_address: str, name: str) -> int:
    """Do what the learner does with a job: go on with those on disk, start this one, and see it end."""
    import structlog
    import torch

    from learner.encoders import EmbedOptions, Encoders
    from learner.reembedding.jobs import ReembeddingJobs
    from learner.reembedding.store import CheckpointName, JobState, ReembeddingRequest
    from learner.text_encoder import TextEncoder

    embed, known = TextEncoder.embed, set(texts().values())

    def recorded(self: TextEncoder, some, *rest, **more):
        with Path(folder, "embedded.txt").open("a") as file:
            file.writelines(f"{text}\n" for text in some if text in known)
        return embed(self, some, *rest, **more)

    TextEncoder.embed = recorded
    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    encoders = Encoders(
        torch.device("cpu"), keep=1, batch_tokens=256, allow_download=False, log=log, classifier_of=_classifier_of
    )
    with IndexClient(index_address) as client:
        jobs = ReembeddingJobs(Path(folder, "jobs"), client, encoders, batch_items=BATCH, max_waiting=1, log=log)
        known_already = Path(folder, "jobs").exists()
        jobs.resume()
        request = ReembeddingRequest(
            source_pool=f"{name}-live",
            target_pool=f"{name}-new",
            options=EmbedOptions(encoder=""),
            checkpoint=CheckpointName(campaign="news", round=1),
            alias=f"{name}-live",
        )
        # After a restart the record is all there is: nobody asks again.
        job_id = request.id if known_already else jobs.start(request).id
        *_, end = jobs.watch(job_id)
        jobs.close()
    return 0 if end.state is JobState.FINISHED else 1


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
