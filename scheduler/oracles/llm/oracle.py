"""The oracle that asks a language model."""

from collections.abc import Iterator, Sequence

from scheduler.domain.answers import Answer
from scheduler.domain.llm_spec import annotator_of, endpoint_of, examples_of
from scheduler.oracles.llm.asking import Asker, Inquiry, Work
from scheduler.oracles.llm.budget import Budget
from scheduler.oracles.llm.examples import Nearest
from scheduler.oracles.llm.models import LanguageModels
from scheduler.oracles.llm.questions import QuestionWriter
from scheduler.oracles.port import Labels, OracleJob
from scheduler.ports import Index
from scheduler.storage import campaigns, llm_answers
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition
from sealpool.v1 import scheduler_pb2

CHUNK = 32
"""Items read from the index server at once."""

_FIELD = "spec.oracle.llm"


class LlmOracle:
    """Asks a language model for each item's class, and shows it the nearest labelled ones.

    It abstains, and people get the item, where the model says that it cannot tell, where its answer is not valid even
    after it was told what was wrong, where several samples do not agree, and below `min_confidence`; `verdict` says
    how samples are counted. The confidence of one answer is the one that the model reports.

    Labels that stand in the model's own name are not shown to it: it would learn from its own mistakes.
    """

    def __init__(self, *, index: Index, store: Store, models: LanguageModels) -> None:
        self._index = index
        self._store = store
        self._models = models

    def annotator(self, spec: scheduler_pb2.CampaignSpec) -> str:
        """Return in whose name its labels stand: llm:<model>."""
        return annotator_of(spec.oracle.llm)

    def check(self, spec: scheduler_pb2.CampaignSpec) -> None:
        """Look whether the endpoint is there and the template can be rendered. The model is not asked: it may cost.

        Raises
        ------
        InvalidArgument
            The template.
        FailedPrecondition
            No such endpoint, a package that is not installed, or max_cost where the endpoint has no prices.
        """
        llm = spec.oracle.llm
        client = self._models.client(endpoint_of(llm), field=f"{_FIELD}.endpoint")
        QuestionWriter(spec, client.endpoint).check()
        if llm.max_cost and not client.endpoint.has_prices:
            raise FailedPrecondition(
                f"{_FIELD}.max_cost: endpoint {client.name!r} has no price_in and price_out to count with",
                field=f"{_FIELD}.max_cost",
            )

    def label(self, job: OracleJob) -> Iterator[Sequence[Answer]]:
        """Ask about items, and yield a few answers at a time, as they come.

        Raises
        ------
        OracleExhausted
            max_tokens or max_cost has no room for another question.
        Unavailable
            The endpoint is away.
        FailedPrecondition
            It refuses: a wrong key, no such model.
        """
        llm = job.spec.oracle.llm
        client = self._models.client(endpoint_of(llm), field=f"{_FIELD}.endpoint")
        with self._store.reading() as session:
            campaign_id = campaigns.get(session, job.campaign).id
            spent = llm_answers.spent(session, campaign_id)
            labels = llm_answers.labels_of_others(
                session, campaign_id, annotator=self.annotator(job.spec), until=job.snapshot
            )
        asker = Asker(
            store=self._store,
            campaign_id=campaign_id,
            spec=job.spec,
            client=client,
            budget=Budget(llm, client.endpoint, spent),
            metrics=self._models.metrics,
        )
        nearest = Nearest(self._index, job.spec, labels, count=examples_of(llm))
        yield from Inquiry(asker, client, self._work(job, QuestionWriter(job.spec, client.endpoint), nearest)).answers()

    def held_out(self, spec: scheduler_pb2.CampaignSpec) -> Labels:  # noqa: ARG002 - the port's
        """Label nothing: a model measured by another model's answers is measured by how alike they are."""
        return {}

    def _work(self, job: OracleJob, writer: QuestionWriter, nearest: Nearest) -> Iterator[Work]:
        for start in range(0, len(job.item_ids), CHUNK):
            some = job.item_ids[start : start + CHUNK]
            items = self._index.get_items(
                job.spec.pool, some, vectors=nearest.needs_vectors, payloads=True, allow_missing=True
            )
            for item, payload, examples in zip(items.ids, items.payloads or (), nearest.of(items), strict=True):
                # A campaign's own template may show more than the text.
                is_blank = not payload.text.strip() and not job.spec.oracle.llm.template
                yield item, None if is_blank else writer.write(payload, examples)
