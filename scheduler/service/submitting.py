"""Labels in, many callers' at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.combining import Combiner
from scheduler.domain.answers import Answer
from scheduler.domain.labels import ClassIndex
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.labelling import Committed, Strangers, commit_submissions
from scheduler.labelling_cases import Submission
from scheduler.ports import Index
from scheduler.service.checks import check_annotator, check_text
from scheduler.service.known_specs import KnownSpecs
from scheduler.service.once import Once, check_request_id, parts
from scheduler.storage import campaigns
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument, NotFound, ResourceExhausted, SealpoolError
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2
from sealpool.validation import MAX_ID_BYTES, check_ids
from sealpool.vocabulary.checking import check_range

MAX_COMMENT_BYTES = 16 * 1024
MOST_CALLS = 256
"""Of a group: a caller waits for the group before and for its own."""

_Answer = scheduler_pb2.SubmitLabelsResponse | Strangers


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """A request that was checked as far as it can be without the campaign's state."""

    request: scheduler_pb2.SubmitLabelsRequest
    submission: Submission


class Submitter:
    """Takes labels.

    Submissions that come while others are committed wait, and are committed together: see `commit_submissions`. On
    PostgreSQL those of a campaign, which wait for its lock anyway; on SQLite, which has one writer, all.

    Parameters
    ----------
    max_labels
        Labels in one call at most.
    on_labels
        Called with the name of a campaign with an after_labels rule whenever labels of it were committed. Must not
        raise: the labels are on disk, and the caller has to be told so.
    """

    def __init__(self, *, store: Store, index: Index, max_labels: int, on_labels: Callable[[str], None]) -> None:
        self._store = store
        self._index = index
        self._max_labels = max_labels
        self._on_labels = on_labels
        self._once = Once(store)
        self._specs = KnownSpecs(store)
        self._combiner: Combiner[_Call, _Answer] = Combiner(self._commit, most=MOST_CALLS)

    def submit(self, request: scheduler_pb2.SubmitLabelsRequest) -> scheduler_pb2.SubmitLabelsResponse:
        """Commit annotations, all of them or none."""
        try:
            check_request_id(request)
            call = self._checked(request)
            answer = self._committed(call)
        except SealpoolError:
            # What the first of two like requests changed may be why the second is refused.
            earlier = self._once.answered(request, scheduler_pb2.SubmitLabelsResponse)
            if earlier is None:
                raise
            return earlier
        reach("scheduler.submit.after_commit")
        return answer

    def _committed(self, call: _Call) -> scheduler_pb2.SubmitLabelsResponse:
        answer = self._combined(call)
        while isinstance(answer, Strangers):
            answer = self._combined(self._with_strangers(call, answer.items))
        return answer

    def _combined(self, call: _Call) -> _Answer:
        return self._combiner.run("" if self._store.has_one_writer else call.request.campaign, call)

    def _commit(self, _key: str, calls: Sequence[_Call]) -> list[_Answer | Exception]:
        """Answer calls of any campaigns, in as few transactions as their request ids and numbers of labels allow."""
        answers: list[_Answer | Exception] = []
        requests = [call.request for call in calls]
        for part in parts(requests, lambda request: len(request.labels), most=self._max_labels):
            some = calls[part]
            try:
                answers += self._commit_at_once(some)
            except SealpoolError as error:  # of the database: the transactions before this one stand
                answers += [error] * len(some)
        return answers

    def _commit_at_once(self, calls: Sequence[_Call]) -> list[_Answer | SealpoolError]:
        due: set[str] = set()

        def effect(session: Session, new: Sequence[int]) -> list[_Answer | SealpoolError]:
            done: dict[int, _Answer | SealpoolError] = {}
            for name in sorted({calls[at].request.campaign for at in new}):
                of_campaign = [at for at in new if calls[at].request.campaign == name]
                answers = self._commit_campaign(session, name, [calls[at].submission for at in of_campaign], due)
                done.update(zip(of_campaign, answers, strict=True))
            session.flush()
            reach("scheduler.submit.before_commit")
            return [done[at] for at in new]

        requests = [call.request for call in calls]
        answers: list[_Answer | SealpoolError] = []
        answers += self._once.run_all(requests, scheduler_pb2.SubmitLabelsResponse, effect)
        for name in due:
            self._on_labels(name)
        return answers

    def _commit_campaign(
        self, session: Session, name: str, submissions: Sequence[Submission], due: set[str]
    ) -> list[_Answer | SealpoolError]:
        """Commit what came for one campaign, and note it in `due` if a rule of it looks at labels."""
        campaign = campaigns.lock(session, name)
        spec = self._specs.of(campaign).spec
        results = commit_submissions(session, campaign, spec, submissions, now=self._store.clock.now())
        for submission, result in zip(submissions, results, strict=True):
            trains = submission.purpose in (None, LabelPurpose.TRAINING)
            if trains and spec.rule.after_labels and isinstance(result, Committed):
                due.add(name)
        return [_response(result) if isinstance(result, Committed) else result for result in results]

    def _checked(self, request: scheduler_pb2.SubmitLabelsRequest) -> _Call:
        classes = self._specs.classes_of(request.campaign)
        submission = Submission(
            purpose=messages.purpose_of("purpose", request.purpose),
            annotator=check_annotator(request.annotator),
            answers=self._answers(request, classes),
            present=(),
        )
        return _Call(request=request, submission=submission)

    def _answers(self, request: scheduler_pb2.SubmitLabelsRequest, classes: ClassIndex) -> Sequence[Answer]:
        if not request.labels:
            raise InvalidArgument("labels", "is empty")
        if len(request.labels) > self._max_labels:
            raise ResourceExhausted(
                f"labels: {len(request.labels):,} in one call", limit=self._max_labels, setting="max_labels"
            )
        items = check_ids("labels.item_id", [label.item_id for label in request.labels])
        for item in items:
            check_text("labels.item_id", item, max_bytes=MAX_ID_BYTES)
        return [
            _answer(f"labels[{position}]", item, label, classes)
            for position, (item, label) in enumerate(zip(items, request.labels, strict=True))
        ]

    def _with_strangers(self, call: _Call, items: Sequence[ItemId]) -> _Call:
        """Return a call with all its items known to be there, after a look into their pool, which may take a while."""
        with self._store.reading() as session:
            spec = self._specs.of(campaigns.get(session, call.request.campaign)).spec
        is_held_out = call.submission.purpose is LabelPurpose.EVALUATION
        self._check_items(spec.evaluation_pool if is_held_out else spec.pool, items)
        return replace(call, submission=replace(call.submission, present=None))

    def _check_items(self, pool: str, items: Sequence[ItemId]) -> None:
        if not items:
            return
        with asking("the index server"):
            found = self._index.get_items(pool, items, vectors=False, allow_missing=True)
        present = set(found.ids)
        missing = [item for item in items if item not in present]
        if missing:
            raise NotFound("item (labels.item_id)", *missing, field="labels.item_id")


def _response(committed: Committed) -> scheduler_pb2.SubmitLabelsResponse:
    return scheduler_pb2.SubmitLabelsResponse(
        accepted=committed.accepted,
        unsolicited=committed.unsolicited,
        corrections=committed.corrections,
        labels=committed.labels,
        waiting=committed.waiting,
        given_up=committed.given_up,
    )


def _answer(field: str, item: ItemId, label: scheduler_pb2.NewLabel, classes: ClassIndex) -> Answer:
    outcome = messages.outcome_of(f"{field}.outcome", label.outcome)
    if outcome is not Outcome.LABEL and label.classes:
        raise InvalidArgument(f"{field}.classes", "names classes beside an outcome that is no label")
    if label.HasField("confidence"):
        check_range(f"{field}.confidence", label.confidence, 0, 1)
    return Answer(
        item_id=item,
        outcome=outcome,
        classes=classes.indices(f"{field}.classes", label.classes) if outcome is Outcome.LABEL else (),
        confidence=label.confidence if label.HasField("confidence") else None,
        comment=check_text(f"{field}.comment", label.comment, max_bytes=MAX_COMMENT_BYTES),
    )
