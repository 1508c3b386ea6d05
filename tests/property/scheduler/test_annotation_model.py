"""Annotations of several people against a dictionary: who said what, what is labelled, what still waits."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.labelling import commit_answers
from scheduler.storage import annotations, campaigns, labels, leases, tasks
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec

ITEMS = ["i0", "i1", "i2", "unasked"]
CLASSES = ["a", "b", "c"]
SAYS = st.one_of(st.integers(0, 2), st.just(Outcome.SKIP), st.just(Outcome.CANNOT_TELL))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("uvwxyz"), st.dictionaries(st.sampled_from(ITEMS), SAYS, min_size=1)),
        st.tuples(st.just("lease"), st.sampled_from("uvwxyz"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 60)),
    ),
    max_size=25,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = Store(open_engine(f"sqlite:///{tmp_path / 'log.db'}", connections=2), clock=clock)
    migrate(opened)
    yield opened
    opened.close()


class Model:
    """The contract, as one would say it: nothing but what each said last, and what follows."""

    def __init__(self, wanted: int, at_most: int, give_up_after: int) -> None:
        self.wanted, self.at_most, self.give_up_after = wanted, at_most, give_up_after
        self.said: dict[str, dict[str, int | Outcome]] = {item: {} for item in ITEMS}
        self.answered: set[tuple[str, str]] = set()
        self.label: dict[str, int] = {}
        self.corrections = 0
        self.given_up: set[str] = set()

    def say(self, who: str, item: str, what: int | Outcome) -> None:
        self.answered.add((who, item))
        if what is not Outcome.SKIP:
            self.said[item][who] = what
        votes = [one for one in self.said[item].values() if isinstance(one, int)]
        if self.wanted == 1:
            decided = what if isinstance(what, int) else None
        elif what is Outcome.SKIP:
            decided = None
        else:
            decided = self.winner(votes) if len(votes) >= self.wanted else None
        unsure = len(self.said[item]) - len(votes)
        if what is Outcome.CANNOT_TELL and unsure >= self.give_up_after:
            decided = None
            if item not in self.label:
                self.given_up.add(item)
        elif item not in self.label and len(votes) >= self.at_most > 1 and decided is None:
            self.given_up.add(item)
        if decided is not None:
            self.given_up.discard(item)
            if item in self.label and (self.wanted == 1 or self.label[item] != decided):
                self.corrections += 1
            self.label[item] = decided

    @staticmethod
    def winner(votes: list[int]) -> int | None:
        ranked = Counter(votes).most_common(2)
        tie = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
        return ranked[0][0] if ranked and not tie else None

    def wanted_now(self, item: str) -> int:
        """How many tasks of an item wait or are leased."""
        if item == "unasked" or item in self.label or item in self.given_up:
            return 0
        votes = [one for one in self.said[item].values() if isinstance(one, int)]
        return max(self.wanted - len(votes), 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, wanted=st.integers(1, 3), more=st.integers(0, 2), give_up_after=st.integers(1, 3))
def test_annotations_labels_and_tasks_are_what_the_dictionary_says(
    store: Store, clock: FakeClock, steps: list[tuple[str, str, object]], wanted: int, more: int, give_up_after: int
) -> None:
    model = Model(wanted, wanted + more, give_up_after)
    campaign = begin(store, model)
    slots = model.at_most
    for kind, who, what in steps:
        if kind == "wait":
            assert isinstance(what, int)
            clock.advance(what)
        elif kind == "lease":
            assert isinstance(what, int)
            with store.writing() as session:
                got = leases.lease(
                    session, campaign.id, annotator=who, count=what, now=clock.now(), lease_s=30, slots=slots
                )
            items = [task.item_id for task in got]
            assert len(set(items)) == len(items)
            assert not {(who, item) for item in items} & model.answered
            assert all(model.wanted_now(item) for item in items)
        else:
            assert isinstance(what, dict)
            submit(store, campaign.name, who, what)
            for item, one in what.items():
                model.say(who, item, one)
        check(store, campaign, model)


def begin(store: Store, model: Model) -> Campaign:
    annotation = pb.AnnotationSpec(
        annotations=model.wanted, max_annotations=model.at_most, give_up_after=model.give_up_after
    )
    with store.writing() as session:
        name = f"c{len(campaigns.all_by_name(session, include_archived=True))}"
        spec = make_spec(name=name, classes=CLASSES, task=common_pb2.TASK_KIND_MULTICLASS, annotation=annotation)
        campaign = campaigns.add(session, spec, now=store.clock.now())
        picks = [
            tasks.Pick(item_id=ItemId(item), score=0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for item in ITEMS[:3]
        ]
        tasks.add(session, campaign.id, 0, picks, labelled=(), annotations=model.wanted)
    return campaign


def submit(store: Store, name: str, who: str, what: dict[str, int | Outcome]) -> None:
    answers = [
        Answer(item_id=ItemId(item), classes=(one,))
        if isinstance(one, int)
        else Answer(item_id=ItemId(item), outcome=one)
        for item, one in what.items()
    ]
    with store.writing() as session:
        locked = campaigns.lock(session, name)
        commit_answers(session, locked, answers, annotator=who, purpose=None, now=store.clock.now())


def check(store: Store, campaign: Campaign, model: Model) -> None:
    with store.reading() as session:
        found = labels.effective(session, campaign.id, purpose=LabelPurpose.TRAINING, until=2**40)
        assert {item: classes[0] for item, classes in found.items()} == model.label
        opinions = annotations.opinions(
            session, campaign.id, [ItemId(item) for item in ITEMS], purposes=[LabelPurpose.TRAINING]
        )
        for item in ITEMS:
            said = {
                who: one.classes[0] if one.outcome is Outcome.LABEL else one.outcome
                for who, one in opinions.get(ItemId(item), {}).items()
            }
            assert said == model.said[item]
        counts = tasks.counts(session, [campaign.id], now=store.clock.now())[campaign.id]
        assert counts.open + counts.leased == sum(model.wanted_now(item) for item in ITEMS)
        assert counts.given_up == len(model.given_up - {"unasked"})
        log = labels.page(
            session,
            campaign.id,
            purpose=LabelPurpose.TRAINING,
            only_effective=False,
            after=0,
            until=2**40,
            limit=999,
        )
        assert sum(row.corrects for row in log) == model.corrections
        assert len(log) == len(model.label) + model.corrections
