"""The callers of a rolling restart's load: one class for each thing that users do."""

import itertools
import threading
from queue import SimpleQueue

import numpy as np

from sealpool.client import IndexClient, LearnerClient, SchedulerClient, StreamClient
from sealpool.client.stream import stream_item
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2, stream_pb2
from tests.deploy.rolling_data import POOL, POOL_ITEMS, Labels, make_campaign, make_items
from tests.deploy.rolling_load import OPTIONS, Caller


class Searcher(Caller):
    """Looks for neighbours, and reads items: each answer is that of before."""

    def __init__(self, target: str, items: Items) -> None:
        self._client = IndexClient(target, options=OPTIONS)
        super().__init__("search", self._client)
        self._items = items
        self._round = itertools.count()
        self._expected = [self._answer(number) for number in range(10)]

    def _answer(self, number: int) -> tuple[list[ItemId], list[ItemId]]:
        vectors = np.asarray(self._items.vectors)[10 * number : 10 * number + 3]
        by_vectors = self._client.search(POOL, k=5, vectors=vectors)
        by_ids = self._client.search(POOL, k=5, ids=self._items.ids[10 * number : 10 * number + 3])
        return by_vectors.ids, by_ids.ids

    def call(self) -> None:
        number = next(self._round) % len(self._expected)
        assert self._answer(number) == self._expected[number]
        ids = self._items.ids[50 * number : 50 * number + 50]
        assert self._client.get_items(POOL, ids).ids == ids


class Uploader(Caller):
    """Adds, replaces and deletes items of a pool that is its own, and makes and deletes other pools."""

    def __init__(self, target: str) -> None:
        self._client = IndexClient(target, options=OPTIONS)
        super().__init__("upload", self._client)
        self._client.create_pool(index_pb2.PoolSpec(name="growing", dimension=8))
        self._calls = 0
        self._there: dict[ItemId, bytes] = {}

    def call(self) -> None:
        self._calls += 1
        self._put(f"a{self._calls}", 20)
        self._put(f"a{self._calls // 2 + 1}", 10)
        if self._calls % 5 == 0:
            gone = [ItemId(f"a{self._calls}-{number}") for number in range(4)]
            self._client.delete_items("growing", gone)
            for item in gone:
                del self._there[item]
        if self._calls % 10 == 0:
            self._client.create_pool(index_pb2.PoolSpec(name=f"made-{self._calls}", dimension=4))
            self._client.set_alias("newest", f"made-{self._calls}")
            self._client.delete_alias("newest")
            self._client.delete_pool(f"made-{self._calls}")

    def _put(self, prefix: str, count: int) -> None:
        items = make_items(prefix, count, seed=self._calls)
        self._client.upsert("growing", items)
        for item, vector in zip(items.ids, np.asarray(items.vectors), strict=True):
            self._there[item] = vector.tobytes()

    def check(self) -> None:
        found = {
            item: vector.tobytes()
            for items in self._client.scan_items("growing")
            for item, vector in zip(items.ids, np.asarray(items.vectors), strict=True)
        }
        assert found == self._there


class Scanner(Caller):
    """Reads a whole pool, and what a model says of all of it, slower than they are sent."""

    def __init__(self, index: str, learner: str, items: Items, campaign: str) -> None:
        self._client = IndexClient(index, options=OPTIONS)
        self._learner = LearnerClient(learner, options=OPTIONS)
        super().__init__("scan", self._client, self._learner)
        self._items = items
        self._campaign = campaign
        self._expected = self._predicted()

    def _predicted(self) -> tuple[list[ItemId], bytes]:
        parts = list(self._learner.predict(self._campaign))
        return [item for part in parts for item in part.ids], b"".join(p.probabilities.tobytes() for p in parts)

    def call(self) -> None:
        scanned = [item for items in self._client.scan_items(POOL, payloads=True) for item in items.ids]
        assert scanned == list(self._items.ids)
        assert self._predicted() == self._expected


class Expander(Caller):
    """Grows a candidate pool by the differences that it is told."""

    def __init__(self, target: str, items: Items) -> None:
        self._client = IndexClient(target, options=OPTIONS)
        super().__init__("expand", self._client)
        self._items = items
        self._labelled = 0
        self._version = 0
        self._held: set[ItemId] = set()

    def call(self) -> None:
        if self._labelled + 2 > POOL_ITEMS:
            return
        update = self._client.expand_candidates(
            POOL,
            "expanded",
            self._items.ids[self._labelled : self._labelled + 2],
            policy=common_pb2.PolicySpec(name="seals", k=5),
            held_version=self._version,
        )
        self._labelled += 2
        if update.base_version == 0:
            self._held.clear()
        self._held.difference_update(update.removed)
        self._held.update(update.added.ids)
        self._version = update.info.version
        assert len(self._held) == update.info.size

    def check(self) -> None:
        listed = [item for items in self._client.list_candidates(POOL, "expanded") for item in items.ids]
        assert set(listed) == self._held
        assert len(listed) == len(self._held)


class RoundRunner(Caller):
    """Runs campaigns to their end, whose labels are those of one that nothing happened to."""

    budget = 80

    def __init__(self, target: str) -> None:
        self._client = SchedulerClient(target, options=OPTIONS)
        super().__init__("rounds", self._client)
        self._campaigns = itertools.count()
        self.undisturbed = "rounds-0"
        self._expected = self._run()
        assert len({item for _, item, _ in self._expected}) == self.budget

    def _run(self) -> Labels:
        name = f"rounds-{next(self._campaigns)}"
        oracle = scheduler_pb2.OracleSpec(name="dataset")
        self._client.create_campaign(make_campaign(name, budget=self.budget, oracle=oracle))
        while self._client.run_round(name).campaign_state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            pass
        return [(label.round, label.item_id, tuple(label.classes)) for label in self._client.list_labels(name)]

    def call(self) -> None:
        assert self._run() == self._expected

    def check(self) -> None:
        rounds = [self._client.list_rounds(name) for name in (self.undisturbed, "rounds-1")]
        assert [r.labels for r in rounds[0]] == [r.labels for r in rounds[1]]


class Desk:
    """A campaign whose tasks several annotators share, and what they were handed and told."""

    campaign = "shared"

    def __init__(self, target: str, items: Items) -> None:
        self._client = SchedulerClient(target, options=OPTIONS)
        rule = scheduler_pb2.RoundRule(after_labels=10)
        self._client.create_campaign(make_campaign(self.campaign, budget=POOL_ITEMS, rule=rule))
        self._client.run_round(self.campaign)
        payloads = items.payloads or []
        self.truth = {item: str(payload.metadata["labels"]) for item, payload in zip(items.ids, payloads, strict=True)}
        self.handed_out: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.has_changed = threading.Condition()

    def hand_out(self, item: str, annotator: str) -> None:
        with self.has_changed:
            assert item not in self.handed_out, f"{item} is {self.handed_out[item]}'s, and {annotator}'s"
            self.handed_out[item] = annotator

    def check(self) -> None:
        assert set(self.handed_out.values()) == {"ada", "bob"}
        assert set(self.acknowledged) == set(self.handed_out)
        labels = list(self._client.list_labels(self.campaign))
        assert max(label.round for label in labels) >= 1, "no round came of labels while services were restarted"
        assert len(labels) == len({label.item_id for label in labels})
        assert {label.item_id: label.classes[0] for label in labels} == self.acknowledged
        assert self._client.get_campaign(self.campaign).labels == len(self.acknowledged)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Annotator(Caller):
    """Takes tasks and labels them."""

    def __init__(self, name: str, target: str, desk: Desk) -> None:
        self._client = SchedulerClient(target, options=OPTIONS)
        super().__init__(name, self._client)
        self._desk = desk

    def call(self) -> None:
        desk = self._desk
        tasks = self._client.lease_tasks(desk.campaign, annotator=self.name, max_tasks=3).tasks
        for task in tasks:
            desk.hand_out(task.item_id, self.name)
        if not tasks:
            with desk.has_changed:
                desk.has_changed.wait(0.5)
            return
        labels = {task.item_id: [desk.truth[ItemId(task.item_id)]] for task in tasks}
        answer = self._client.submit_labels(desk.campaign, labels, annotator=self.name)
        assert answer.accepted == len(labels)
        with desk.has_changed:
            desk.acknowledged.update({item: classes[0] for item, classes in labels.items()})


class Considerer(Caller):
    """Has items judged, one by one, over one stream for the whole time. None is asked about, so the pool stays."""

    campaign = "considered"

    def __init__(self, target: str) -> None:
        self._client = StreamClient(target, options=OPTIONS)
        self._scheduler = SchedulerClient(target, options=OPTIONS)
        super().__init__("consider", self._client, self._scheduler)
        never = scheduler_pb2.StreamSpec(threshold=scheduler_pb2.STREAM_THRESHOLD_FIXED, uncertainty=1)
        oracle = scheduler_pb2.OracleSpec(name="dataset")
        self._scheduler.create_campaign(make_campaign(self.campaign, budget=80, oracle=oracle, stream=never))
        for _ in range(2):
            self._scheduler.run_round(self.campaign)
        self._items: SimpleQueue[stream_pb2.StreamItem | None] = SimpleQueue()
        self._decisions = self._client.consider(self.campaign, iter(self._items.get, None))
        self._sent = 0

    def call(self) -> None:
        item = f"considered-{self._sent}"
        self._sent += 1
        self._items.put(stream_item(item, vector=np.full(8, self._sent, np.float32)))
        decision = next(self._decisions)
        assert (decision.item_id, decision.asked) == (item, False)

    def end(self) -> None:
        self._items.put(None)

    def check(self) -> None:
        assert not list(self._decisions)
        assert self._client.get_stream(self.campaign).seen == self._sent


class Watcher(Caller):
    """Watches the shared campaign over one stream for the whole time."""

    def __init__(self, target: str, desk: Desk) -> None:
        self._client = SchedulerClient(target, options=OPTIONS)
        super().__init__("watch", self._client)
        self._desk = desk
        self._events = self._client.watch_campaign(desk.campaign)
        self._seen: list[scheduler_pb2.WatchCampaignResponse] = []

    def call(self) -> None:
        event = next(self._events, None)
        if event is not None:
            self._seen.append(event)
        with self._desk.has_changed:
            self._desk.has_changed.notify_all()

    def end(self) -> None:
        self._client.archive_campaign(self._desk.campaign)

    def check(self) -> None:
        self._seen.extend(self._events)
        assert [event.sequence for event in self._seen] == sorted({event.sequence for event in self._seen})
        archived = scheduler_pb2.CAMPAIGN_STATE_ARCHIVED
        assert any(event.campaign_state_changed.state == archived for event in self._seen)
        # A round that ran when the campaign was archived may tell of its end after the watch's.
        last = self._seen[-1].sequence
        told = [e for e in self._client.watch_campaign(self._desk.campaign) if e.sequence <= last]
        missed = [event for event in told if event not in self._seen]
        assert not missed, f"{len(missed)} of {len(told)} events were missed, the first of them {missed[0]}"
        assert len(self._seen) == len(told)
