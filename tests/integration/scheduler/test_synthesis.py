"""Items that are made, and real ones found by made points."""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from scheduler.domain.origin import is_made
from scheduler.drawing import draw_real
from scheduler.storage import synthetic
from scheduler.synthesis.augmenting import CHANGES, Change, augment
from scheduler.synthesis.making import Maker
from scheduler.synthesis.paraphrasing import Wanted
from scheduler.synthesis.plan import Plan
from scheduler.synthesis.service import SynthesisService
from sealpool.client import ClientOptions, StreamClient
from sealpool.errors import FailedPrecondition, InternalError, InvalidArgument, NotFound, SealpoolError, Unavailable
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, learner_pb2, stream_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import vector_of
from tests.unit.scheduler.world import DATASET, World, make_spec

INTERPOLATE = stream_pb2.SYNTHESIS_METHOD_INTERPOLATE
BOUNDARY = stream_pb2.SYNTHESIS_METHOD_BOUNDARY
AUGMENT = stream_pb2.SYNTHESIS_METHOD_AUGMENT
PARAPHRASE = stream_pb2.SYNTHESIS_METHOD_PARAPHRASE
UNSPECIFIED = stream_pb2.SYNTHESIS_METHOD_UNSPECIFIED
ENCODER = learner_pb2.EmbedHeader(encoder="e", normalize=True)
TEXT = "the moduli space of stable sheaves on surfaces, and what {} has to do with it"


@pytest.fixture
def client(world: World) -> Iterator[StreamClient]:
    options = ClientOptions(retry_for_s=0, timeout_s=20, long_timeout_s=60)
    with StreamClient(world.server.address, options=options) as connected:
        yield connected


@pytest.fixture
def labelled(world: World) -> World:
    """A campaign with a model, 11 labels, and no task that waits."""
    for item, payload in world.index.pools["pool"].items():
        world.index.pools["pool"][item] = Payload(text=TEXT.format(item), metadata=payload.metadata)
    world.client.create_campaign(make_spec(budget=40))
    for _ in range(2):
        world.client.run_round("c")
        world.label()
    return world


def sources(world: World) -> set[str]:
    return {label.item_id for label in world.labels()}


@pytest.mark.parametrize("method", [INTERPOLATE, BOUNDARY])
def test_real_items_are_asked_about_each_once(
    labelled: World, client: StreamClient, method: stream_pb2.SynthesisMethod.ValueType
) -> None:
    items = client.synthesize("c", method, 8)
    known = sources(labelled)
    assert len({item.item_id for item in items}) == 8
    for item in items:
        assert item.real
        assert item.item_id in labelled.index.pools["pool"]
        assert item.item_id not in known
        assert set(item.sources) <= known
        assert item.text == TEXT.format(item.item_id)
        assert 0 <= item.distance <= 2
    if method == INTERPOLATE:
        assert all(len({labelled.truth(source) for source in item.sources}) == 2 for item in items)
    tasks = labelled.client.lease_tasks("c", annotator="x", max_tasks=100).tasks
    assert {task.item_id for task in tasks} == {item.item_id for item in items}
    assert {task.origin for task in tasks} == {common_pb2.PICK_ORIGIN_SYNTHESIS}
    assert sorted(item.item_id for item in client.list_synthetic("c")) == sorted(item.item_id for item in items)
    more = client.synthesize("c", method, 8)
    assert not {item.item_id for item in more} & {item.item_id for item in items}


def test_the_item_asked_about_is_the_nearest_that_is_free(labelled: World, client: StreamClient) -> None:
    item = client.synthesize("c", INTERPOLATE, 1)[0]
    known = sources(labelled)
    start, end = (vector_of(source).astype(np.float64) for source in item.sources)
    shares = np.linspace(0, 1, 2_001)[:, None]
    way = start + shares * (end - start)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    free = [other for other in labelled.index.pools["pool"] if other not in known]
    distances = 1 - way @ np.stack([vector_of(other) for other in free]).T
    # Somewhere on the way the item is the nearest, and as far as it is said to be.
    at = distances[:, free.index(item.item_id)]
    assert np.any((at == distances.min(axis=1)) & (np.abs(at - item.distance) < 2e-3))


@pytest.mark.parametrize("keep_label", [False, True])
def test_changed_texts_are_new_items_that_say_where_they_come_from(
    labelled: World, client: StreamClient, keep_label: bool
) -> None:
    before = labelled.client.get_campaign("c").labels
    known = {label.item_id: list(label.classes) for label in labelled.labels()}
    items = client.synthesize("c", AUGMENT, 14, encoder=ENCODER, keep_label=keep_label)
    assert len({item.item_id for item in items}) == len({item.text for item in items}) == 14
    pool = labelled.index.pools["pool"]
    for item in items:
        assert is_made(item.item_id)
        assert not item.real
        assert item.text != TEXT.format(item.sources[0])
        payload = pool[ItemId(item.item_id)]
        assert payload.text == item.text
        assert payload.metadata == {"sealpool_origin": "augment", "sealpool_sources": list(item.sources)}
        assert np.allclose(labelled.index.vectors["pool"][ItemId(item.item_id)], vector_of(item.text))
    tasks = labelled.client.lease_tasks("c", annotator="x", max_tasks=100).tasks
    assert len(tasks) == (0 if keep_label else 14)
    campaign = labelled.client.get_campaign("c")
    assert campaign.labels == before + (14 if keep_label else 0)
    if keep_label:
        given = {label.item_id: label for label in labelled.labels() if label.annotator == "synthesis"}
        assert {item.item_id: known[item.sources[0]] for item in items} == {
            item: list(label.classes) for item, label in given.items()
        }
        assert {label.purpose for label in given.values()} == {pb.LABEL_PURPOSE_TRAINING}
    with labelled.scheduler.store.reading() as session:
        assert synthetic.made(session) == sorted(item.item_id for item in items)
    if keep_label:  # then they are labelled items, and still no sources
        again = client.synthesize("c", AUGMENT, 5, encoder=ENCODER)
        assert not {item.item_id for item in again} & {item.item_id for item in items}
        assert not any(is_made(source) for item in again for source in item.sources)


def test_a_draw_never_has_made_items(labelled: World, client: StreamClient) -> None:
    made = [ItemId(f"synthetic:{number}") for number in range(20)]
    vectors = np.stack([vector_of(item) for item in made])
    labelled.index.upsert("pool", Items(ids=made, vectors=vectors, payloads=[Payload(text="made")] * 20))
    real = {item for item in labelled.index.pools["pool"] if not is_made(item)}
    for seed in range(5):
        drawn = draw_real(labelled.index, "pool", 40, seed=seed, exclude=[ItemId("i000")])
        assert len(set(drawn)) == 40
        assert set(drawn) <= real - {"i000"}
    assert set(draw_real(labelled.index, "pool", 100, seed=1)) == real
    # Nor does a point lead to one.
    found = client.synthesize("c", INTERPOLATE, 9)
    assert len(found) == 9
    assert {item.item_id for item in found} <= real


def test_no_more_is_made_than_the_budget_leaves(labelled: World, client: StreamClient) -> None:
    assert len(client.synthesize("c", INTERPOLATE, 25)) == 25
    assert len(client.synthesize("c", BOUNDARY, 10)) == 40 - 11 - 25
    with pytest.raises(FailedPrecondition, match="nothing is left"):
        client.synthesize("c", BOUNDARY, 1)


def test_a_request_that_comes_again_is_answered_as_the_first(labelled: World, client: StreamClient) -> None:
    first = client.synthesize("c", BOUNDARY, 3, request_id="r")
    labelled.index.troubles.always("search", Unavailable("away"))
    assert client.synthesize("c", BOUNDARY, 3, request_id="r") == first
    with pytest.raises(InvalidArgument, match="other content"):
        client.synthesize("c", BOUNDARY, 4, request_id="r")
    with pytest.raises(Unavailable):
        client.synthesize("c", BOUNDARY, 3)
    assert labelled.client.get_campaign("c").open_tasks == 3


def test_a_pool_with_few_items_left_gives_those(labelled: World, client: StreamClient) -> None:
    pool = labelled.index.pools["pool"]
    known = sources(labelled)
    for item in [item for item in pool if item not in known][3:]:
        del pool[item]
    assert len(client.synthesize("c", INTERPOLATE, 6)) == 3


def test_only_items_of_the_classes_asked_for_are_sources(labelled: World, client: StreamClient) -> None:
    items = client.synthesize("c", AUGMENT, 4, encoder=ENCODER, classes=["a"])
    assert {labelled.truth(item.sources[0]) for item in items} == {"a"}
    with pytest.raises(FailedPrecondition, match="one class"):
        client.synthesize("c", INTERPOLATE, 4, classes=["a"])


def test_a_call_out_of_place_is_refused(world: World, client: StreamClient) -> None:
    world.client.create_campaign(make_spec())
    with pytest.raises(NotFound):
        client.synthesize("nobody", BOUNDARY, 1)
    with pytest.raises(NotFound):
        list(client.list_synthetic("nobody"))
    for words, call in {
        "method": lambda: client.synthesize("c", UNSPECIFIED, 1),
        "count": lambda: client.synthesize("c", BOUNDARY, 0),
        "max_lease_tasks": lambda: client.synthesize("c", BOUNDARY, 1_001),
        "keep_label": lambda: client.synthesize("c", BOUNDARY, 1, keep_label=True),
        "model": lambda: client.synthesize("c", AUGMENT, 1, model="m"),
        "classes": lambda: client.synthesize("c", BOUNDARY, 1, classes=["z"]),
    }.items():
        with pytest.raises(InvalidArgument, match=words):
            call()
    with pytest.raises(FailedPrecondition, match="no labelled item"):
        client.synthesize("c", INTERPOLATE, 1)
    world.client.run_round("c")
    world.label()
    with pytest.raises(FailedPrecondition, match="no model yet"):
        client.synthesize("c", BOUNDARY, 1)
    with pytest.raises(FailedPrecondition, match="encoder"):
        client.synthesize("c", AUGMENT, 1)
    with pytest.raises(FailedPrecondition, match="language model"):
        client.synthesize("c", PARAPHRASE, 1, encoder=ENCODER)
    with pytest.raises(FailedPrecondition, match="endpoint"):
        client.synthesize("c", PARAPHRASE, 1, encoder=ENCODER, model="m")
    world.client.pause_campaign("c")
    with pytest.raises(FailedPrecondition, match="paused"):
        client.synthesize("c", INTERPOLATE, 1)


def test_a_data_set_is_not_asked_about_items_that_it_cannot_know(world: World, client: StreamClient) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    with pytest.raises(FailedPrecondition, match="keep_label"):
        client.synthesize("c", AUGMENT, 1, encoder=ENCODER)
    assert len(client.synthesize("c", AUGMENT, 2, encoder=ENCODER, keep_label=True)) == 2


def test_changes_follow_from_their_seeds_and_are_small() -> None:
    text = TEXT.format("this")
    changes = [Change(text=text, kind=kind, seed=seed) for kind in range(CHANGES) for seed in range(3)]
    made = augment([*changes, *(Change(text=short, kind=kind, seed=0) for short in ("x", "数学") for kind in (0, 1))])
    assert made[: len(changes)] == augment(changes)
    assert made[len(changes) :] == ["x", "x", "数学", "数学"]  # too short to be changed
    assert len(set(made)) > 8
    for change, new in zip(changes, made, strict=False):
        words, there = text.split(), new.split()
        assert len(there) <= len(words)
        if change.kind == 0:
            assert sorted(words) == sorted(there)
        if change.kind >= 2:
            assert 1 <= sum(one != other for one, other in zip(words, there, strict=True)) <= 4


@pytest.mark.parametrize(
    ("child", "error", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", InternalError, "ended with -9"),
        ("import time; time.sleep(60)", Unavailable, "took over 2 s; ask for fewer"),
        ("import sys; sys.exit('no memory left')", InternalError, "no memory left"),
        ("print('Downloading ...')", InternalError, "without an answer"),
        ("print('{\"texts\": []}')", InternalError, "no text for some"),
        (
            "import runpy, sys; sys.modules['nlpaug'] = None\n"
            "runpy.run_module('scheduler.synthesis.augment_child', run_name='__main__')",
            FailedPrecondition,
            r"needs nlpaug: pip install \"sealpool\[stream\]",
        ),
    ],
    ids=["killed", "hangs", "fails", "babbles", "too few", "not installed"],
)
def test_a_child_that_does_not_answer_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, child: str, error: type[SealpoolError], words: str
) -> None:
    monkeypatch.setattr("scheduler.synthesis.augmenting._COMMAND", (sys.executable, "-c", child))
    monkeypatch.setattr("scheduler.synthesis.augmenting._LIMIT_S", 2 if "sleep" in child else 60)
    with pytest.raises(error, match=words):
        augment([Change(text="some words to change", kind=0, seed=1)])


def test_many_labelled_items_are_drawn_from_and_a_rare_class_is_among_them() -> None:
    sources = {ItemId(f"i{number}"): ((1,) if number % 500 == 7 else (0,)) for number in range(2_000)}
    plan = Plan(
        campaign_id=1, spec=make_spec(), method=BOUNDARY, count=1, sources=sources, taken=[], seed=3,
        keep_label=False, encoder=ENCODER, endpoint="", model="",
    )  # fmt: skip
    drawn = plan.some_sources(50)
    assert len(set(drawn)) == 50
    assert sum(sources[item] == (1,) for item in drawn) == 4  # all that there are
    assert drawn == plan.some_sources(50)
    assert plan.some_sources(2_000) == list(sources)


class Upside:
    """A paraphraser that turns words round, and has nothing to say of one source."""

    def __init__(self) -> None:
        self.quiet = ItemId("")

    def paraphrase(self, campaign: str, wanted: Sequence[Wanted], *, endpoint: str, model: str) -> list[str]:
        assert (campaign, endpoint, model) == ("c", "default", "m")
        self.quiet = self.quiet or wanted[0].source
        turned = [" ".join(reversed(one.text.split())) + f" {one.variant}" for one in wanted]
        return ["" if one.source == self.quiet else text for one, text in zip(wanted, turned, strict=True)]


def test_paraphrases_are_items_where_the_model_gave_one(labelled: World) -> None:
    store = labelled.scheduler.store
    maker = Maker(store=store, index=labelled.index, learner=labelled.learner, paraphraser=Upside())
    service = SynthesisService(store=store, index=labelled.index, maker=maker, max_count=50, on_labels=print)
    request = stream_pb2.SynthesizeRequest(campaign="c", method=PARAPHRASE, count=13, encoder=ENCODER, model="m")
    items = service.synthesize(request).items
    assert len(items) == 13
    assert all(item.text.startswith("it with do to has") for item in items)
    assert all(is_made(item.item_id) for item in items)


def test_what_is_listed_comes_in_chunks(labelled: World, client: StreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.synthesis.service.ITEMS_A_MESSAGE", 3)
    made = client.synthesize("c", INTERPOLATE, 8)
    assert [item.item_id for item in client.list_synthetic("c")] == sorted(item.item_id for item in made)
