"""A scan goes on over the end of the index server's process with the very items that it has not yielded yet."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sealpool.client import ClientOptions, IndexClient
from sealpool.types import ItemId, Items
from sealpool.v1 import index_pb2
from tests.support.processes import ServiceProcess

ROWS = 24_000
DIMENSION = 256
"""The pool, 24 MB, is more than what is on its way to a reader that pauses."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(
        "index_server", tmp_path, "--disk-throttle-share=1", "--disk-refuse-share=1", "--grace-s=1"
    )
    process.start()
    yield process
    process.kill()


@pytest.fixture
def client(process: ServiceProcess) -> Iterator[IndexClient]:
    with IndexClient(process.address, options=ClientOptions(retry_for_s=60)) as client:
        client.create_pool(index_pb2.PoolSpec(name="pool", dimension=DIMENSION))
        yield client


def put(client: IndexClient, numbers: range, *, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(numbers), DIMENSION), np.float32)
    client.upsert("pool", Items(ids=[ItemId(str(number)) for number in numbers], vectors=vectors))


def contents(parts: Iterator[Items]) -> list[tuple[ItemId, bytes]]:
    return [
        (item, vector.tobytes())
        for part in parts
        for item, vector in zip(part.ids, np.asarray(part.vectors), strict=True)
    ]


@pytest.mark.parametrize("end", [ServiceProcess.kill, ServiceProcess.stop], ids=["killed", "stopped"])
def test_a_scan_goes_on_after_the_index_server_has_ended_in_the_middle(
    process: ServiceProcess, client: IndexClient, end: Callable[[ServiceProcess], object]
) -> None:
    for part in range(4):
        put(client, range(part * ROWS // 4, (part + 1) * ROWS // 4), seed=part)
    put(client, range(0, ROWS, 7), seed=9)  # replaced, so no longer where they were
    client.delete_items("pool", [str(number) for number in range(0, ROWS, 11)])
    whole = contents(client.scan_items("pool"))
    scan = client.scan_items("pool")
    first = contents(itertools.islice(scan, 1))
    end(process)
    process.start()
    assert [*first, *contents(scan)] == whole
    assert len(first) < len(whole) // 2
