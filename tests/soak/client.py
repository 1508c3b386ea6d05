"""One client of a soak: mixed calls on items and campaigns of its own, each answer held against what must be true.

python -m tests.soak.client ADDRESS NAME SECONDS SEED RESULT
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np

from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc

DIMENSION = 16
MOST_ITEMS = 3000
"""Of one client in one pool: it deletes beyond that, so that a stable memory is to be expected."""
MOST_LABELLED = 150
TIMEOUT_S = 60.0


class Wrong(AssertionError):
    """The server said something that is not true."""


class Campaign:
    """What a client knows of a candidate pool: the differences it was told, added up."""

    def __init__(self) -> None:
        self.version = 0
        self.held: set[str] = set()
        self.labelled: set[str] = set()

    def take(self, answers: Sequence[index_pb2.ExpandCandidatesResponse]) -> None:
        """Add an answer up."""
        summary = answers[-1].summary
        if summary.base_version == 0:
            self.held.clear()
        for answer in answers:
            self.held.difference_update(answer.removed.ids)
        for answer in answers:
            self.held.update(answer.added.ids)
        self.version = summary.info.version
        if len(self.held) != summary.info.size:
            raise Wrong(f"held {len(self.held)} candidates of {summary.info.size}")


class Client:
    """Draws calls and makes them. All ids begin with its name, so nobody else changes its items."""

    def __init__(self, stub: index_pb2_grpc.IndexServiceStub, name: str, pools: Sequence[str], seed: int) -> None:
        self._stub = stub
        self._name = name
        self._random = np.random.default_rng(seed)
        self._made = 0
        self.items: dict[str, dict[str, list[float]]] = {pool: {} for pool in pools}
        self.campaigns = {pool: Campaign() for pool in pools}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._calls: dict[str, tuple[Callable[[str], None], float]] = {
            "upsert small": (self._small, 0.25),
            "upsert bulk": (self._bulk, 0.03),
            "overwrite": (self._overwrite, 0.12),
            "delete": (self._delete, 0.1),
            "search vectors": (self._search, 0.15),
            "search ids": (self._search_ids, 0.1),
            "get": (self._get, 0.08),
            "sample": (self._sample, 0.05),
            "expand": (self._expand, 0.1),
            "drop": (self._drop, 0.02),
        }

    def run(self, seconds: float) -> None:
        """Make calls for so long."""
        end = time.monotonic() + seconds
        names = list(self._calls)
        weights = [weight for _, weight in self._calls.values()]
        for pool in self.items:
            self._bulk(pool)
        while time.monotonic() < end:
            name = str(self._random.choice(names, p=weights))
            pool = str(self._random.choice(list(self.items)))
            began = time.perf_counter()
            self._calls[name][0](pool)
            self.seconds[name].append(time.perf_counter() - began)

    def _new(self, count: int) -> list[str]:
        self._made += count
        return [f"{self._name}-{number}" for number in range(self._made - count, self._made)]

    def _own(self, pool: str, count: int) -> list[str]:
        ids = list(self.items[pool])
        return [ids[i] for i in self._random.choice(len(ids), size=min(count, len(ids)), replace=False)]

    def _put(self, pool: str, ids: list[str]) -> None:
        vectors = self._random.standard_normal((len(ids), DIMENSION), dtype=np.float32)
        own = self.items[pool]
        replaced = sum(item_id in own for item_id in ids)
        requests = []
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            payloads = common_pb2.Payloads(texts=[f"text of {item_id}" for item_id in part])
            batch = common_pb2.ItemBatch(ids=part, vectors=to_matrix(vectors[start : start + 500]), payloads=payloads)
            requests.append(index_pb2.UpsertRequest(pool=pool, items=batch, last=start + 500 >= len(ids)))
        answer = self._stub.Upsert(iter(requests), timeout=TIMEOUT_S)
        if (answer.inserted, answer.replaced) != (len(ids) - replaced, replaced):
            raise Wrong(
                f"{answer.inserted} inserted, {answer.replaced} replaced of {len(ids)}, of which {replaced} old"
            )
        own.update(zip(ids, vectors.tolist(), strict=True))

    def _small(self, pool: str) -> None:
        self._put(pool, self._new(int(self._random.integers(1, 6))))

    def _bulk(self, pool: str) -> None:
        if len(self.items[pool]) < MOST_ITEMS:
            self._put(pool, self._new(1000))
        else:
            self._remove(pool, self._own(pool, 1000))

    def _overwrite(self, pool: str) -> None:
        self._put(pool, self._own(pool, 5))

    def _delete(self, pool: str) -> None:
        self._remove(pool, self._own(pool, 5))

    def _remove(self, pool: str, ids: list[str]) -> None:
        answer = self._stub.DeleteItems(index_pb2.DeleteItemsRequest(pool=pool, ids=ids), timeout=TIMEOUT_S)
        if answer.deleted != len(ids):
            raise Wrong(f"{answer.deleted} of {len(ids)} deleted")
        for item_id in ids:
            del self.items[pool][item_id]

    def _search(self, pool: str) -> None:
        own = self._own(pool, 3)
        request = index_pb2.SearchRequest(pool=pool, k=10)
        request.vectors.CopyFrom(to_matrix(np.array([self.items[pool][i] for i in own], np.float32)))
        answer = self._stub.Search(request, timeout=TIMEOUT_S)
        starts = np.cumsum([0, *answer.counts])
        first = [answer.ids[start] for start in starts[:-1]]
        if pool == "exact" and first != own:
            raise Wrong(f"the nearest of the vectors of {own} are {first}")

    def _search_ids(self, pool: str) -> None:
        own = self._own(pool, 3)
        answer = self._stub.Search(index_pb2.SearchRequest(pool=pool, k=10, ids=own), timeout=TIMEOUT_S)
        if set(own) & set(answer.ids[: answer.counts[0]]) & {own[0]}:
            raise Wrong(f"{own[0]} found itself")

    def _get(self, pool: str) -> None:
        own = self._own(pool, 20)
        request = index_pb2.GetItemsRequest(pool=pool, ids=own, include_vectors=True)
        answers = list(self._stub.GetItems(request, timeout=TIMEOUT_S))
        if [item_id for answer in answers for item_id in answer.items.ids] != own:
            raise Wrong("other items than those asked for")
        vectors = np.concatenate([from_matrix(answer.items.vectors) for answer in answers])
        if not np.array_equal(vectors, np.array([self.items[pool][i] for i in own], np.float32)):
            raise Wrong("other vectors than those last written")

    def _sample(self, pool: str) -> None:
        request = index_pb2.SampleItemsRequest(pool=pool, campaign=self._name, count=50, seed=self._made)
        drawn = set(self._stub.SampleItems(request, timeout=TIMEOUT_S).ids)
        if drawn & self.campaigns[pool].labelled:
            raise Wrong("a labelled item was drawn")

    def _expand(self, pool: str) -> None:
        campaign = self.campaigns[pool]
        if len(campaign.labelled) > MOST_LABELLED:
            self._drop(pool)
            campaign = self.campaigns[pool]
        labelled = [item_id for item_id in self._own(pool, 4) if item_id not in campaign.labelled]
        request = index_pb2.ExpandCandidatesRequest(
            pool=pool, campaign=self._name, labelled_ids=labelled, expand_from_ids=labelled[:2]
        )
        request.held_version, request.include_vectors, request.policy.k = campaign.version, True, 20
        campaign.take(list(self._stub.ExpandCandidates(request, timeout=TIMEOUT_S)))
        campaign.labelled.update(labelled)
        if campaign.held & campaign.labelled:
            raise Wrong("a labelled item is a candidate")

    def _drop(self, pool: str) -> None:
        self._stub.DropCandidates(index_pb2.DropCandidatesRequest(pool=pool, campaign=self._name), timeout=TIMEOUT_S)
        self.campaigns[pool] = Campaign()

    def settle(self) -> None:
        """Learn what others' changes did to the candidate pools, when nobody changes anything any more."""
        for pool, campaign in self.campaigns.items():
            if campaign.version:
                request = index_pb2.ExpandCandidatesRequest(
                    pool=pool, campaign=self._name, held_version=campaign.version
                )
                campaign.take(list(self._stub.ExpandCandidates(request, timeout=TIMEOUT_S)))


def main(arguments: Sequence[str]) -> int:
    """Run one client; return 1 if something was wrong, which RESULT then says."""
    address, name, seconds, seed, result = arguments
    with grpc.insecure_channel(address) as channel:
        client = Client(index_pb2_grpc.IndexServiceStub(channel), name, ("exact", "graph"), int(seed))
        fault = ""
        try:
            client.run(float(seconds))
            sys.stdout.write("done\n")
            sys.stdout.flush()
            sys.stdin.readline()  # until all clients are done
            client.settle()
        except (grpc.RpcError, Wrong) as error:
            fault = f"{name}: {error}"
    campaigns = {
        pool: {"version": c.version, "held": sorted(c.held), "labelled": sorted(c.labelled)}
        for pool, c in client.campaigns.items()
    }
    content = {"fault": fault, "items": client.items, "campaigns": campaigns, "seconds": client.seconds}
    Path(result).write_text(json.dumps(content))
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
