"""What many callers want is done together, as if they had come one after the other, over SQLite and PostgreSQL."""

import io
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from scheduler.combining import Combiner
from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.labelling import Committed, Strangers, commit_answers, commit_submissions
from scheduler.labelling_cases import Submission
from scheduler.service.submitting import Submitter
from scheduler.service.tasks import TaskService
from scheduler.settings import SchedulerSettings
from scheduler.storage import campaigns, leases, tasks
from scheduler.storage.models import Annotation, Campaign, Event, Label, Task
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, SealpoolError
from sealpool.runtime.logs import make_logger
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import FakeIndex, FakeLearner
from tests.unit.scheduler.world import make_spec

ITEMS = [f"i{number:03d}" for number in range(12)]


def add_campaign(store: Store, *, handed_out: Sequence[str] = ITEMS[:9], annotations: int = 1, **spec: Any) -> Campaign:
    picks = [tasks.Pick(item_id=ItemId(i), score=1.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for i in handed_out]
    wanted = pb.AnnotationSpec(annotations=annotations)
    with store.writing() as session:
        campaign = campaigns.add(session, make_spec(annotation=wanted, **spec), now=store.clock.now())
        tasks.add(session, campaign.id, 0, picks, labelled=(), annotations=annotations)
    return campaign


def labelled(annotator: str, *items: str, index: int = 0, **more: Any) -> Submission:
    answers = [Answer(item_id=ItemId(item), classes=(index,)) for item in items]
    return Submission(answers=answers, annotator=annotator, **{"purpose": None, **more})


def commit(store: Store, name: str, *submissions: Submission) -> list[Committed | Strangers | SealpoolError]:
    with store.writing() as session:
        campaign = campaigns.lock(session, name)
        spec = campaigns.spec_of(campaign)
        return commit_submissions(session, campaign, spec, submissions, now=store.clock.now())


def everything(store: Store, campaign: Campaign) -> list[Any]:
    """Return what the database holds of a campaign, beside its keys."""
    said = select(Annotation.item_id, Annotation.annotator, Annotation.outcome, Annotation.purpose, Annotation.round)
    made = select(Label.item_id, Label.annotator, Label.classes, Label.round, Label.unsolicited, Label.corrects)
    wanted = select(Task.item_id, Task.slot, Task.purpose, Task.state, Task.annotator, Task.lease_expires_at)
    with store.reading() as session:
        row = session.get_one(Campaign, campaign.id)
        return [
            list(session.execute(said.where(Annotation.campaign_id == campaign.id).order_by(Annotation.sequence))),
            list(session.execute(made.where(Label.campaign_id == campaign.id).order_by(Label.sequence))),
            list(session.execute(wanted.where(Task.campaign_id == campaign.id).order_by(Task.item_id, Task.slot))),
            (row.labelled, row.evaluation_labelled),
        ]


def some_submission(choose: random.Random) -> Submission:
    def answer(item: str) -> Answer:
        outcome = choose.choice([Outcome.LABEL, Outcome.LABEL, Outcome.LABEL, Outcome.SKIP, Outcome.CANNOT_TELL])
        classes = (choose.randrange(2),) if outcome is Outcome.LABEL else ()
        return Answer(item_id=ItemId(item), outcome=outcome, classes=classes)

    return Submission(
        answers=[answer(item) for item in choose.sample(ITEMS, choose.randint(1, 3))],
        annotator=choose.choice("xyzw"),
        purpose=choose.choice([None, None, LabelPurpose.TRAINING, LabelPurpose.AUDIT, LabelPurpose.EVALUATION]),
    )


@pytest.mark.parametrize("annotations", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_group_does_what_its_submissions_do_one_after_the_other(store: Store, seed: int, annotations: int) -> None:
    choose = random.Random(100 * annotations + seed)
    together = add_campaign(store, name="together", annotations=annotations, budget=8)
    apart = add_campaign(store, name="apart", annotations=annotations, budget=8)
    for _ in range(4):
        group = [some_submission(choose) for _ in range(choose.randint(1, 8))]
        one_by_one: list[Committed | str] = []
        for each in group:
            try:
                with store.writing() as session:
                    locked = campaigns.lock(session, "apart")
                    said = {"annotator": each.annotator, "purpose": each.purpose, "now": store.clock.now()}
                    one_by_one.append(commit_answers(session, locked, each.answers, **said))
            except (FailedPrecondition, InvalidArgument) as error:
                one_by_one.append(error.message)
        results = commit(store, "together", *group)
        assert [r.message if isinstance(r, SealpoolError) else r for r in results] == one_by_one
        assert everything(store, together) == everything(store, apart)


def test_a_group_fills_the_budget_to_its_last_label_and_refuses_only_what_goes_beyond(store: Store) -> None:
    campaign = add_campaign(store, name="c", budget=3)
    a, b, c, d = ITEMS[:4]
    first, wide, second, correction, late = commit(
        store,
        "c",
        labelled("x", a),
        labelled("y", b, c, d),
        labelled("z", b, c),
        labelled("y", a, index=1),
        labelled("w", d),
    )
    assert [isinstance(one, FailedPrecondition) for one in (first, wide, second, correction, late)] == [0, 1, 0, 0, 1]
    assert isinstance(second, Committed)
    assert second.labels == 3
    said, made, _, counts = everything(store, campaign)
    assert [(row[0], row[1]) for row in said] == [(a, "x"), (b, "z"), (c, "z"), (a, "y")]
    assert [(row[0], row[5]) for row in made] == [(a, False), (b, False), (c, False), (a, True)]
    assert counts == (3, 0)


def test_watchers_are_told_once_of_submissions_that_are_committed_together(store: Store) -> None:
    campaign = add_campaign(store, name="c")
    commit(store, "c", *(labelled(f"x{item}", item) for item in ITEMS[:5]))
    with store.reading() as session:
        (body,) = session.scalars(select(Event.body).where(Event.campaign_id == campaign.id))
    arrived = pb.WatchCampaignResponse.FromString(body).labels_arrived
    assert (arrived.accepted, arrived.labels) == (5, 5)


def test_strangers_stop_nobody_but_who_brought_them(store: Store) -> None:
    add_campaign(store, name="c")
    stranger, known, other = ITEMS[9], ITEMS[0], ITEMS[1]
    results = commit(
        store, "c", labelled("x", stranger, other, present=()), labelled("y", known, present=()), labelled("z", "new")
    )
    assert results[0] == Strangers([ItemId(stranger)])
    assert all(isinstance(one, Committed) for one in results[1:])
    assert isinstance(commit(store, "c", labelled("x", "new", present=()))[0], Committed)


@pytest.mark.parametrize("annotations", [1, 2])
def test_annotators_who_ask_together_get_what_they_would_one_after_the_other(store: Store, annotations: int) -> None:
    found: list[list[list[str]]] = []
    now = store.clock.now()
    for name in ("together", "apart"):
        campaign = add_campaign(store, name=name, annotations=annotations)
        commit(store, name, labelled("x", ITEMS[0]), labelled("y", ITEMS[1]), labelled("x", ITEMS[4]))
        wanted = [
            leases.Wanted(annotator=who, count=n, until=now + timedelta(seconds=60))
            for who, n in zip("xyzx", (2, 3, 9, 9), strict=True)
        ]
        groups = [wanted] if name == "together" else [[one] for one in wanted]
        with store.writing() as session:
            given = [
                some
                for group in groups
                for some in leases.lease_all(session, campaign.id, group, now=now, slots=4 * (annotations - 1) or 1)
            ]
        found.append([[task.item_id for task in some] for some in given])
    assert found[0] == found[1]
    assert sum(map(len, found[0])) > 0


def test_who_is_barred_from_what_lies_on_top_gets_what_lies_below(store: Store) -> None:
    campaign = add_campaign(store, name="c", annotations=2, budget=50)
    commit(store, "c", labelled("x", *ITEMS[:8]))
    with store.writing() as session:
        wanted = [leases.Wanted(annotator=who, count=1, until=store.clock.now()) for who in ("x", "y")]
        given = leases.lease_all(session, campaign.id, wanted, now=store.clock.now(), slots=1)
    assert [[task.item_id for task in some] for some in given] == [[ITEMS[8]], [ITEMS[0]]]


class Group:
    """Lets calls wait until all of them do, and then be done together."""

    def __init__(self, store: Store, combiner: Combiner[Any, Any]) -> None:
        self._store = store
        self._combiner = combiner

    def run(self, *calls: Callable[[], Any]) -> list[Any]:
        """Do the first by itself, for whose end the others wait; return answers, or errors in their place."""
        with ThreadPoolExecutor(len(calls)) as threads:
            with self._store.writing() as session:
                campaigns.lock(session, "c")
                futures: list[Future[Any]] = []
                for waiting, call in enumerate(calls):
                    futures.append(threads.submit(call))
                    while self._calls_inside() <= waiting:
                        assert not futures[-1].done()
            return [future.exception(20) or future.result() for future in futures]

    def _calls_inside(self) -> int:
        with self._combiner._lock:  # each queue has a call at its head that is being done
            return sum(map(len, self._combiner._waiting.values())) + len(self._combiner._waiting)


def submit(annotator: str, *items: str, request_id: str = "", purpose: int = 0) -> pb.SubmitLabelsRequest:
    return pb.SubmitLabelsRequest(
        campaign="c",
        annotator=annotator,
        labels=[pb.NewLabel(item_id=item, classes=["a"]) for item in items],
        request_id=request_id,
        purpose=purpose,  # type: ignore[arg-type]
    )


def test_a_request_id_that_comes_twice_in_a_group_takes_effect_once(store: Store) -> None:
    campaign = add_campaign(store, name="c")
    index = FakeIndex()
    index.add_pool("pool", 60)
    told: list[str] = []
    submitter = Submitter(store=store, index=index, max_labels=9, on_labels=told.append)
    a, b, c, *_ = ITEMS
    requests = [
        submit("x", a),
        submit("y", b, request_id="1"),
        submit("y", b, request_id="1"),
        submit("z", c, request_id="1"),
        submit("z", "i999"),
        submit("w", "i050", c),
        submit("y", b, request_id="1"),
    ]
    answers = Group(store, submitter._combiner).run(*(lambda r=request: submitter.submit(r) for request in requests))
    first, one, again, other, absent, unsolicited, third = answers
    assert first.accepted == 1
    assert one == again == third
    assert one.labels == 2
    assert isinstance(other, InvalidArgument)
    assert isinstance(absent, NotFound)
    assert (unsolicited.accepted, unsolicited.unsolicited) == (2, 1)
    assert [row[0] for row in everything(store, campaign)[0]] == [a, b, "i050", c]
    assert told == []


def test_annotators_who_wait_together_share_one_look_into_the_pool(store: Store) -> None:
    add_campaign(store, name="c")
    index = FakeIndex()
    index.add_pool("pool", 60)
    log = make_logger(SchedulerSettings(), "scheduler", stream=io.StringIO())
    service = TaskService(store=store, index=index, learner=FakeLearner(index), max_lease_tasks=9, log=log)

    def ask(who: str, request_id: str = "") -> Callable[[], pb.LeaseTasksResponse]:
        request = pb.LeaseTasksRequest(campaign="c", annotator=who, max_tasks=2, request_id=request_id)
        return lambda: service.lease(request)

    if store.has_one_writer:
        answers = Group(store, service._combiner).run(ask("x"), ask("y", "1"), ask("z"), ask("y", "1"))
    else:  # leasing does not wait for the campaign's lock
        answers = [ask("x")(), ask("y", "1")(), ask("z")(), ask("y", "1")()]
    given = [[task.item_id for task in answer.tasks] for answer in answers]
    assert sorted(item for some in given[:3] for item in some) == ITEMS[:6]
    assert given[1] == given[3]
    assert all(task.text for answer in answers for task in answer.tasks)
