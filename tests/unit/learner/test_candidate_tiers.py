"""Candidates and their texts are those of the index server, wherever their vectors lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from learner.candidates import Candidates, Slot
from learner.checkpoints import CheckpointStore
from learner.choosing import StrategyChooser
from learner.device import Mirror
from learner.draws import keys_of
from learner.expansion import Expander, HeldCampaign, HeldCampaigns, LabelledSet
from learner.labelled import LabelledReader
from learner.metrics import LearnerMetrics
from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.select_order import Selection, SelectOrder
from learner.selecting import Selector
from learner.sources import CandidateSource, ItemsGoneError
from learner.vectors import VectorReader
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2
from tests.support.fake_index import FakeIndex, FakeUpdate

CPU = torch.device("cpu")
DIMENSION = 3
ROW_BYTES = 4 * DIMENSION
FULL = common_pb2.PolicySpec(name="full")

Item = tuple[NDArray[np.float32], str]
Step = tuple[bool, list[str], list[str], int]


def item_of(item_id: str, seed: int) -> Item:
    """Return a vector, which may be of zeros, and a text, which may be empty, of an id and a seed."""
    rng = np.random.default_rng([*item_id.encode(), seed])
    return rng.integers(-1, 2, DIMENSION).astype(np.float32), "word " * int(rng.integers(0, 3))


def update_of(items: dict[str, Item], removed: Sequence[str], *, version: int, base: int, texts: bool) -> FakeUpdate:
    vectors = np.array([vector for vector, _ in items.values()], np.float32).reshape(len(items), DIMENSION)
    payloads = [Payload(text=text) for _, text in items.values()] if texts else None
    return FakeUpdate(
        added=Items(ids=[ItemId(item_id) for item_id in items], vectors=vectors, payloads=payloads),
        removed=[ItemId(item_id) for item_id in removed],
        info=common_pb2.CandidatePoolInfo(version=version),
        base_version=base,
        pool_direction=np.zeros(DIMENSION, np.float32),
        pool_version=1,
    )


def source_of(candidates: Candidates, there: dict[str, Item]) -> CandidateSource:
    def read(ids: Sequence[ItemId]) -> Items:
        left = [item_id for item_id in ids if item_id in there]
        vectors = np.array([there[item_id][0] for item_id in left], np.float32).reshape(len(left), DIMENSION)
        vectors.flags.writeable = False  # as what came in a message
        return Items(ids=left, vectors=vectors)

    return CandidateSource(candidates=candidates, mirror=Mirror(CPU, limit_bytes=0), read=read, device=CPU)


def check(candidates: Candidates, there: dict[str, Item]) -> None:
    size = len(candidates)
    ids = [candidates.id_at(Slot(slot)) for slot in range(size)]
    assert sorted(ids) == sorted(there)
    assert candidates.slots_of([*ids, ItemId("never")]).tolist() == list(range(size))
    if candidates.with_texts:
        assert list(candidates.texts) == [there[item_id][1] for item_id in ids]
    assert candidates.keys.tolist() == keys_of(ids).tolist()
    vectors = np.array([there[item_id][0] for item_id in ids], np.float32).reshape(size, DIMENSION)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    units = np.divide(vectors, lengths[:, None], out=np.zeros((size, DIMENSION)), where=lengths[:, None] > 0)
    np.testing.assert_allclose(candidates.inverse_lengths, np.linalg.norm(units, axis=1) / np.maximum(lengths, 1e-9))
    if not size:
        return
    source = source_of(candidates, there)
    source.mirror.sync(candidates)
    np.testing.assert_array_equal(source.span(0, size).numpy(), vectors)
    backwards = np.arange(size)[::-1].copy()
    np.testing.assert_array_equal(source.take(backwards).numpy(), vectors[::-1])
    if not candidates.streamed:
        np.testing.assert_allclose(candidates.direction, units.mean(axis=0), atol=1e-6)


names = st.lists(st.sampled_from([f"i{number}" for number in range(12)]), unique=True, max_size=8)
steps = st.lists(st.tuples(st.booleans(), names, names, st.integers(0, 5)), max_size=8)


@given(steps, st.booleans(), st.sampled_from([None, 0, 4 * ROW_BYTES, 7 * ROW_BYTES]), names)
def test_candidates_follow_every_update_whatever_is_kept_of_them(
    updates: list[Step], texts: bool, limit: int | None, lost: list[str]
) -> None:
    candidates = Candidates(with_texts=texts, limit_bytes=limit)
    there: dict[str, Item] = {}
    for version, (anew, added, removed, seed) in enumerate(updates, start=1):
        items = {item_id: item_of(item_id, seed) for item_id in added}
        base = 0 if anew else version - 1
        candidates.apply(update_of(items, removed, version=version, base=base, texts=texts))
        kept = {} if base == 0 else {item_id: item for item_id, item in there.items() if item_id not in removed}
        there = kept | items
        assert candidates.version == version
        check(candidates, there)
        assert candidates.streamed or limit is None or len(there) * ROW_BYTES <= limit
    candidates.forget([ItemId(item_id) for item_id in lost])
    check(candidates, {item_id: item for item_id, item in there.items() if item_id not in lost})


def test_vectors_are_kept_up_to_the_limit_let_go_past_it_and_kept_again_when_begun_anew() -> None:
    candidates = Candidates(limit_bytes=10 * ROW_BYTES)
    items = {f"i{number}": item_of(f"i{number}", 0) for number in range(11)}
    ten = dict(list(items.items())[:10])
    candidates.apply(update_of(ten, [], version=1, base=0, texts=False))
    assert not candidates.streamed
    held = candidates.nbytes
    candidates.apply(update_of({"i10": items["i10"]}, [], version=2, base=1, texts=False))
    assert candidates.streamed
    assert candidates.nbytes < held
    candidates.apply(update_of(ten, [], version=3, base=0, texts=False))
    assert not candidates.streamed
    check(candidates, ten)


def test_growth_to_the_last_item_that_fits_lets_nothing_go() -> None:
    most = 3_000
    candidates = Candidates(limit_bytes=most * ROW_BYTES)
    for start in range(0, most, 500):
        items = {f"i{number}": item_of(f"i{number}", 0) for number in range(start, start + 500)}
        candidates.apply(update_of(items, [], version=start + 1, base=start, texts=False))
        assert not candidates.streamed
        assert candidates.vectors.base is not None
        assert candidates.vectors.base.nbytes <= most * ROW_BYTES
    candidates.apply(update_of({"more": item_of("more", 0)}, [], version=most + 1, base=most, texts=False))
    assert candidates.streamed


@pytest.mark.parametrize("text", ["", "some words"])
def test_memory_counted_for_texts_comes_back_with_what_leaves_and_is_not_counted_twice(text: str) -> None:
    candidates = Candidates(with_texts=True)
    vector = np.ones(DIMENSION, np.float32)
    candidates.apply(update_of({"a": (vector, text), "b": (vector, "b")}, [], version=1, base=0, texts=True))
    once = candidates.nbytes
    for version in range(2, 6):
        candidates.apply(update_of({"a": (vector, text)}, [], version=version, base=version - 1, texts=True))
        assert candidates.nbytes == once
    candidates.apply(update_of({"c": (vector, text)}, ["a"], version=6, base=5, texts=True))
    assert candidates.nbytes == once
    candidates.apply(update_of({"c": (vector, text + "1234567")}, [], version=7, base=6, texts=True))
    assert candidates.nbytes == once + 7


def test_streamed_items_that_are_gone_are_named() -> None:
    there = {f"i{number}": item_of(f"i{number}", 0) for number in range(5)}
    candidates = Candidates(limit_bytes=0)
    candidates.apply(update_of(there, [], version=1, base=0, texts=False))
    source = source_of(candidates, {item_id: item for item_id, item in there.items() if item_id not in ("i1", "i3")})
    for read in (lambda: source.span(0, 5), lambda: source.take(np.arange(5))):
        with pytest.raises(ItemsGoneError) as gone:
            read()
        assert gone.value.ids == ["i1", "i3"]
    assert source.take(np.empty(0, np.int64)).shape == (0, DIMENSION)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def pool_of(name: str = "pool", *, created_s: int = 1) -> index_pb2.Pool:
    pool = index_pb2.Pool(spec=index_pb2.PoolSpec(name=name, dimension=DIMENSION))
    pool.created_at.FromSeconds(created_s)
    return pool


def hold(campaigns: HeldCampaigns, campaign: str, count: int = 5) -> HeldCampaign:
    held = campaigns.get(pool_of(), campaign)
    items = {f"i{number}": item_of(f"i{number}", 0) for number in range(count)}
    held.candidates.apply(update_of(items, [], version=1, base=0, texts=held.candidates.with_texts))
    return held


class TestHeldCampaigns:
    def test_what_nobody_used_for_a_while_is_let_go(self) -> None:
        clock = Clock()
        campaigns = HeldCampaigns(CPU, limit_bytes=1 << 30, device_limit_bytes=0, idle_s=100, clock=clock)
        hold(campaigns, "idle")
        clock.now = 60
        in_use = hold(campaigns, "used")
        clock.now = 100
        campaigns.release_idle()
        assert campaigns.sizes() == {"idle": 5, "used": 5}
        clock.now = 101
        campaigns.release_idle()
        assert campaigns.sizes() == {"used": 5}
        assert campaigns.nbytes() == in_use.candidates.nbytes
        campaigns.get(pool_of(), "used")
        clock.now = 200
        campaigns.release_idle()
        assert campaigns.get(pool_of(), "used") is in_use
        assert len(campaigns.get(pool_of(), "idle").candidates) == 0

    def test_without_a_limit_of_time_nothing_is_let_go(self) -> None:
        clock = Clock()
        campaigns = HeldCampaigns(CPU, limit_bytes=1 << 30, device_limit_bytes=0, clock=clock)
        hold(campaigns, "c")
        clock.now = 1e12
        campaigns.release_idle()
        assert campaigns.sizes() == {"c": 5}

    def test_past_the_limit_the_least_recently_used_go_and_the_last_stays(self) -> None:
        campaigns = HeldCampaigns(CPU, limit_bytes=1 << 30, device_limit_bytes=0)
        one = hold(campaigns, "a").candidates.nbytes
        campaigns = HeldCampaigns(CPU, limit_bytes=2 * one, device_limit_bytes=0)
        for name in "abc":
            hold(campaigns, name)
            campaigns.get(pool_of(), "a")
        campaigns.shrink()
        assert campaigns.sizes() == {"c": 5, "a": 5}
        tight = HeldCampaigns(CPU, limit_bytes=1, device_limit_bytes=0)
        for name in "ab":
            hold(tight, name)
        tight.shrink()
        assert tight.sizes() == {"b": 5}

    def test_texts_that_are_asked_for_later_begin_it_anew_and_stay_when_they_are_not(self) -> None:
        campaigns = HeldCampaigns(CPU, limit_bytes=1 << 30, device_limit_bytes=0)
        plain = hold(campaigns, "c")
        with_texts = campaigns.get(pool_of(), "c", texts=True)
        assert with_texts is not plain
        assert with_texts.candidates.with_texts
        assert campaigns.get(pool_of(), "c") is with_texts
        assert campaigns.get(pool_of(created_s=2), "c", texts=True) is not with_texts


@dataclass
class Room:
    """A selector over an index in memory that keeps at most `limit_bytes` of vectors."""

    index: FakeIndex
    selector: Selector

    def select(
        self, name: str = "random", *, count: int = 6, labelled: Sequence[str] = (), **options: object
    ) -> Selection:
        order = SelectOrder(
            campaign="c",
            round=0,
            pool="pool",
            strategy=StrategyOptions(name=name, **options),  # type: ignore[arg-type]
            policy=FULL,
            batch_size=count,
            exploration=0,
            fill_random=False,
            seed=3,
            problem=Problem(task=Task.BINARY, classes=("no", "yes")),
        )
        expands = {ItemId(item_id): True for item_id in labelled}
        return self.selector.select(order, LabelledSet(expands=expands, excluded=[]), cancelled=lambda: False)


@pytest.fixture
def room(tmp_path) -> Callable[[int], Room]:
    def make(limit_bytes: int) -> Room:
        vectors = np.random.default_rng(0).normal(size=(50, DIMENSION))
        index = FakeIndex({f"item-{number:02}": row.tolist() for number, row in enumerate(vectors)})
        reader = VectorReader(index, cache_bytes=0)
        selector = Selector(
            index,
            checkpoints=CheckpointStore(tmp_path, keep=2, device=CPU),
            campaigns=HeldCampaigns(CPU, limit_bytes=limit_bytes, device_limit_bytes=0),
            expander=Expander(index, told_per_call=100),
            chooser=StrategyChooser(LabelledReader(reader=reader, device=CPU)),
            device=CPU,
            metrics=LearnerMetrics(CollectorRegistry()),
            batch_rows=16,
        )
        return Room(index=index, selector=selector)

    return make


def ids_of(selection: Selection) -> list[str]:
    return [pick.id for pick in selection.picks]


@pytest.mark.parametrize("name", ["random", "k_center", "k_means", "typiclust", "prob_cover", "graph_density"])
def test_picks_do_not_tell_where_vectors_lie(room: Callable[[int], Room], name: str) -> None:
    held, streamed = (room(limit).select(name, labelled=["item-00", "item-01"]) for limit in (1 << 30, 100))
    assert ids_of(streamed) == ids_of(held)
    assert len(set(ids_of(held))) == 6


@pytest.mark.parametrize("name", ["k_center", "k_means", "typiclust"])
@pytest.mark.parametrize("at_read", [1, 2, 4])
def test_a_selection_goes_on_without_candidates_that_are_deleted_meanwhile(
    room: Callable[[int], Room], name: str, at_read: int
) -> None:
    """What is picked is what would have been picked had they been gone from the start."""
    streamed, gone_before = room(100), room(100)
    lost = [f"item-{number:02}" for number in range(0, 50, 7)]
    reads = 0
    get_items = streamed.index.get_items

    def losing(*arguments: object, **options: object) -> Items:
        nonlocal reads
        reads += 1
        if reads == at_read:
            for item_id in lost:
                streamed.index.delete(item_id)
        return get_items(*arguments, **options)  # type: ignore[arg-type]

    streamed.index.get_items = losing  # type: ignore[method-assign, assignment]
    for item_id in lost:
        gone_before.index.delete(item_id)
    expected = ids_of(gone_before.select(name, count=10))
    assert ids_of(streamed.select(name, count=10)) == expected
    assert reads > at_read
    # The next selection is told of them, and they are not there any more.
    assert ids_of(streamed.select(name, count=10)) == expected
    assert not set(ids_of(streamed.select(name, count=50))) & set(lost)


def test_every_candidate_may_be_gone(room: Callable[[int], Room]) -> None:
    streamed = room(100)
    get_items = streamed.index.get_items

    def losing(*arguments: object, **options: object) -> Items:
        for item_id in list(streamed.index.vectors)[1:]:
            streamed.index.delete(item_id)
        return get_items(*arguments, **options)  # type: ignore[arg-type]

    streamed.index.get_items = losing  # type: ignore[method-assign, assignment]
    assert ids_of(streamed.select("k_means")) == ["item-00"]
