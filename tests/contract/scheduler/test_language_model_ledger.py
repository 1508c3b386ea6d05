"""The ledger of language models, on SQLite and PostgreSQL."""

import math

import pytest
from sqlalchemy.orm import Session

from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.labelling import commit_answers
from scheduler.storage import campaigns, llm_answers, tasks
from scheduler.storage.llm_answers import NewAnswer
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.statistics import NORMAL_95, wilson
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from tests.unit.scheduler.world import make_spec

MODEL = "llm:m"


def make_campaign(store: Store, name: str = "c") -> int:
    with store.writing() as session:
        return campaigns.add(session, make_spec(name=name), now=store.clock.now()).id


def answer(item: str, text: str, *, prompt: str = "h", sample: int = 0, cost: float = 0.5) -> NewAnswer:
    return NewAnswer(
        item_id=ItemId(item),
        prompt_hash=prompt,
        sample=sample,
        endpoint="default",
        model="m",
        answer=text,
        problem="",
        tokens_in=100,
        tokens_out=len(text),
        cost=cost,
    )


def keep(store: Store, campaign_id: int, *answers: NewAnswer) -> None:
    with store.writing() as session:
        for each in answers:
            llm_answers.add(session, campaign_id, each, now=store.clock.now())


def say(store: Store, annotator: str, **classes: int | None) -> None:
    with store.writing() as session:
        campaign = campaigns.lock(session, "c")
        answers = [
            Answer(item_id=ItemId(item), outcome=Outcome.CANNOT_TELL)
            if index is None
            else Answer(item_id=ItemId(item), classes=(index,))
            for item, index in classes.items()
        ]
        commit_answers(session, campaign, answers, annotator=annotator, purpose=None, now=store.clock.now())


def add_tasks(session: Session, campaign: Campaign, items: str, purpose: LabelPurpose) -> None:
    audited = purpose == LabelPurpose.REVIEW
    origin = common_pb2.PICK_ORIGIN_AUDIT if audited else common_pb2.PICK_ORIGIN_SEED
    picks = [Pick(item_id=ItemId(item), score=0, origin=origin) for item in items]
    tasks.add(session, campaign.id, 0, picks, labelled=(), purpose=purpose)


def test_the_first_answer_to_a_question_stays_and_is_found_by_its_campaign_alone(store: Store) -> None:
    ours, theirs = make_campaign(store), make_campaign(store, "d")
    keep(store, ours, answer("x", "first"), answer("x", "second"), answer("x", "other", sample=1))
    with store.reading() as session:
        assert llm_answers.find(session, ours, prompt_hash="h", sample=0) == "first"
        assert llm_answers.find(session, ours, prompt_hash="h", sample=1) == "other"
        assert llm_answers.find(session, ours, prompt_hash="h", sample=2) is None
        assert llm_answers.find(session, theirs, prompt_hash="h", sample=0) is None


def test_what_was_spent_is_added_up(store: Store) -> None:
    ours, theirs = make_campaign(store), make_campaign(store, "d")
    keep(store, ours, answer("x", "abc"), answer("y", "abcde", prompt="g", cost=0.25))
    keep(store, theirs, answer("x", "abc"))
    with store.reading() as session:
        spent = llm_answers.spent(session, ours)
        assert (spent.requests, spent.tokens_in, spent.tokens_out, spent.cost) == (2, 200, 8, 0.75)
        assert spent.longest_answer == 5
        assert llm_answers.spent(session, 999).requests == 0


def test_a_nul_in_an_answer_is_left_out(store: Store) -> None:
    ours = make_campaign(store)
    keep(store, ours, answer("x", "a\0b"))
    with store.reading() as session:
        assert llm_answers.find(session, ours, prompt_hash="h", sample=0) == "ab"


def test_the_report_compares_audited_items_alone(store: Store) -> None:
    ours = make_campaign(store)
    with store.reading() as session:
        assert llm_answers.report(session, ours, annotator=MODEL) is None
    keep(store, ours, answer("a", "yes"))
    with store.writing() as session:
        add_tasks(session, campaigns.lock(session, "c"), "abcdef", LabelPurpose.TRAINING)
    say(store, MODEL, a=0, b=0, c=0, d=0, e=None)
    with store.writing() as session:
        add_tasks(session, campaigns.lock(session, "c"), "abc", LabelPurpose.REVIEW)
    say(store, "ann", a=0, b=1, d=1, e=1)  # c is not audited yet; d was nobody's to look at; e the model could not tell
    with store.reading() as session:
        report = llm_answers.report(session, ours, annotator=MODEL)
    assert report is not None
    assert (report.labelled, report.abstained, report.audited, report.errors) == (4, 1, 2, 1)
    assert report.error_rate == 0.5
    assert (report.error_low, report.error_high) == wilson(1, 2)


def test_labels_of_others_end_at_the_snapshot_and_leave_out_the_model_s(store: Store) -> None:
    ours = make_campaign(store)
    say(store, "ann", a=0, b=1)
    say(store, MODEL, c=0)
    with store.reading() as session:
        until = campaigns.get(session, "c").last_sequence
    say(store, "ann", c=1, d=0, a=1)
    with store.reading() as session:
        last = campaigns.get(session, "c").last_sequence
        then = llm_answers.labels_of_others(session, ours, annotator=MODEL, until=until)
        now = llm_answers.labels_of_others(session, ours, annotator=MODEL, until=last)
    assert then == {"a": (0,), "b": (1,)}
    assert now == {"b": (1,), "c": (1,), "d": (0,), "a": (1,)}


@pytest.mark.parametrize(("errors", "trials"), [(0, 5), (1, 5), (5, 5), (3, 40), (17, 1000)])
def test_the_interval_is_where_the_score_test_does_not_reject(errors: int, trials: int) -> None:
    low, high = wilson(errors, trials)
    share = errors / trials
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(share - bound) == pytest.approx(NORMAL_95 * math.sqrt(bound * (1 - bound) / trials))
    assert all(map(math.isnan, wilson(0, 0)))
