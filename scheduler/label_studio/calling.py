"""What Label Studio asks of us: annotations brought by its webhook, and predictions as its ML backend."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scheduler.asking import asking
from scheduler.domain.states import RoundKind, RoundState
from scheduler.embedding import embed_texts
from scheduler.label_studio import api
from scheduler.label_studio.client import LabelStudioClient
from scheduler.label_studio.predictions import in_order, model_version
from scheduler.label_studio.receiving import Receiver
from scheduler.label_studio.servers import LabelStudioServer
from scheduler.ports import Learner
from scheduler.storage import campaigns, rounds
from scheduler.storage import label_studio as storage
from scheduler.storage.models import Campaign, LabelStudioLink, Round
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unauthenticated
from sealpool.v1 import label_studio_pb2, scheduler_pb2

MAX_TASKS = 1_000
_WITH_MODEL = (RoundState.EVALUATING, RoundState.SELECTING, RoundState.LABELLING, RoundState.FINISHED)


class LabelStudioCalls:
    """Answers Label Studio, once it has shown that it may ask."""

    def __init__(
        self,
        *,
        store: Store,
        learner: Learner,
        receiver: Receiver,
        servers: Mapping[str, LabelStudioServer],
        client_of: Callable[[str], LabelStudioClient],
    ) -> None:
        self._store = store
        self._learner = learner
        self._receiver = receiver
        self._servers = servers
        self._client_of = client_of

    def receive(self, name: str, secret: str, given: Any) -> int:
        """Take the annotation of one call of the webhook; return how many were new.

        Raises
        ------
        Unauthenticated
            As `check_secret`.
        InvalidArgument
            What came is not what Label Studio sends.
        Unavailable
            Try again; polling finds it in any case.
        """
        about = self.check_secret(name, secret)
        tasks = _tasks_of(given, about.project_id)
        if not tasks:
            return 0
        taken = self._receiver.take(name, self._client_of(about.server), tasks)
        if taken.refused:
            raise FailedPrecondition(taken.refused, field="annotation")
        return taken.received

    def check_secret(self, name: str, secret: str) -> label_studio_pb2.LabelStudioLink:
        """Return the campaign's link; Unauthenticated where the secret is not the link's, or there is none.

        Callers without it learn nothing of campaigns.
        """
        link = self._link(name)
        if link is None or not _same(secret, link.webhook_secret):
            raise Unauthenticated("the webhook's secret is wrong")
        return label_studio_pb2.LabelStudioLink.FromString(link.link)

    def check_password(self, name: str, password: str) -> None:
        """Raise Unauthenticated unless this is the password by which the campaign's server may ask for predictions."""
        link = self._link(name)
        server = self._servers.get(_server_of(link)) if link is not None else None
        expected = server.ml_password.get_secret_value() if server is not None else ""
        if not expected or not _same(password, expected):
            raise Unauthenticated(
                f"predictions of campaign {name!r} need the password of its Label Studio server (ml_password_file)"
            )

    def version(self, name: str) -> str:
        """Return the version of the campaign's latest model, "" before there is one."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            number = max((one.number for one in rounds.every(session, campaign.id) if _has_model(one)), default=None)
        return "" if number is None else model_version(campaigns.spec_of(campaign), number)

    def predict(self, name: str, tasks: Sequence[Any]) -> list[dict[str, Any]]:
        """Return a prediction for each task: by its item_id, or else by its text.

        Raises
        ------
        InvalidArgument
            A task has neither.
        FailedPrecondition
            Texts, and a campaign that names no encoder.
        NotFound
            The campaign has no model yet, or the pool not such an item.
        """
        if len(tasks) > MAX_TASKS:
            raise ResourceExhausted(f"tasks: {len(tasks):,} in one call", limit=MAX_TASKS, setting="")
        data = [task.get("data") if isinstance(task, Mapping) else None for task in tasks]
        given = [one if isinstance(one, Mapping) else {} for one in data]
        items = {i: one["item_id"] for i, one in enumerate(given) if isinstance(one.get("item_id"), str)}
        texts = {i: one["text"] for i, one in enumerate(given) if i not in items and isinstance(one.get("text"), str)}
        for position in range(len(tasks)):
            if position not in items and position not in texts:
                raise InvalidArgument(f"tasks[{position}].data", "has neither item_id nor text")
        with self._store.reading() as session:
            spec = campaigns.spec_of(campaigns.get(session, name))
        found = {**self._by_items(spec, items), **self._by_texts(spec, texts)}
        return [found[position] for position in range(len(tasks))]

    def _by_items(self, spec: scheduler_pb2.CampaignSpec, items: Mapping[int, str]) -> dict[int, dict[str, Any]]:
        if not items:
            return {}
        with asking("the learner"):
            answered = in_order(spec, self._learner.predict(spec.name, ids=list(items.values())))
            return dict(zip(items, answered, strict=True))

    def _by_texts(self, spec: scheduler_pb2.CampaignSpec, texts: Mapping[int, str]) -> dict[int, dict[str, Any]]:
        if not texts:
            return {}
        encoder = spec.stream.encoder if spec.stream.encoder.encoder else spec.seeding.encoder
        if not encoder.encoder:
            raise FailedPrecondition(
                "tasks: they have no item_id, and the campaign names no encoder for texts (stream.encoder or "
                "seeding.encoder)",
                field="tasks",
            )
        with asking("the learner"):
            vectors = embed_texts(self._learner, encoder, list(texts.values()))
            answered = in_order(spec, self._learner.predict(spec.name, vectors=vectors))
            return dict(zip(texts, answered, strict=True))

    def _link(self, name: str) -> LabelStudioLink | None:
        with self._store.reading() as session:
            try:
                campaign: Campaign = campaigns.get(session, name)
            except NotFound:
                return None
            return storage.link_of(session, campaign.id)


def _tasks_of(given: Any, project_id: int) -> list[api.TheirTask]:
    """Return the task of one call with the annotations that it brings; none of another project's."""
    try:
        annotation, task, project = given["annotation"], given["task"], given["project"]
        if int(project["id"]) != project_id:
            return []
        annotations = annotation if isinstance(annotation, list) else [annotation]
        tasks = {int(one["id"]): one for one in (task if isinstance(task, list) else [task])}
        return [api.task_of({**tasks[int(one["task"])], "annotations": [one]}) for one in annotations]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument("body", "is not what Label Studio sends of annotations") from error


def _has_model(one: Round) -> bool:
    return one.kind in (RoundKind.MODEL, RoundKind.FINAL) and one.state in _WITH_MODEL


def _server_of(link: LabelStudioLink) -> str:
    return label_studio_pb2.LabelStudioLink.FromString(link.link).server


def _same(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())
