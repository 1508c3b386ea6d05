"""A campaign over a small pool, at the ports that labelling the rest of it asks."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sealpool.client.learner import Predictions
from sealpool.types import ItemId, Items, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2

CLASSES = ["a", "b"]
TRAINING = scheduler_pb2.LABEL_PURPOSE_TRAINING
EVALUATION = scheduler_pb2.LABEL_PURPOSE_EVALUATION
AUDIT = scheduler_pb2.LABEL_PURPOSE_AUDIT


class FakePool:
    """Items i0, i1, …; the model's and the propagation's probability of class b are what a test says.

    Answers come in chunks of different sizes, as those of the services do.
    """

    def __init__(self, model: Sequence[float], propagated: Sequence[float] | None = None) -> None:
        self.ids = [ItemId(f"i{number}") for number in range(len(model))]
        self.model = list(model)
        self.propagated = list(propagated or model)
        self.mass = [1.0] * len(model)
        self.version = 7
        self.latest = 3
        self.predicted: list[int] = []
        self.seeds: list[LabelledItems] = []
        self.headers: list[learner_pb2.PropagateHeader] = []
        self.spec = scheduler_pb2.CampaignSpec(name="c", pool="p", classes=CLASSES, task=common_pb2.TASK_KIND_BINARY)
        self.log: list[scheduler_pb2.Label] = []
        self.drawn = 0

    def say(self, item_id: str, *classes: str, purpose: int = TRAINING) -> None:
        """Have an item labelled."""
        self.log.append(
            scheduler_pb2.Label(item_id=item_id, classes=classes, purpose=purpose, sequence=10 + len(self.log))
        )

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        return scheduler_pb2.Campaign(spec=self.spec)

    def list_labels(
        self, campaign: str, *, after_sequence: int = 0, only_effective: bool = False, purpose: int = 0
    ) -> Iterator[scheduler_pb2.Label]:
        some = [label for label in self.log if label.purpose == (purpose or TRAINING)]
        if only_effective:
            some = list({label.item_id: label for label in some}.values())
        yield from some

    def draw_audit(self, campaign: str, *, items: int) -> scheduler_pb2.DrawAuditResponse:
        self.drawn = max(self.drawn, items)
        labelled = sum(label.purpose == AUDIT for label in self.log)
        return scheduler_pb2.DrawAuditResponse(drawn=self.drawn, labelled=labelled)

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        for start in range(0, len(self.ids), 4):
            yield Items(ids=self.ids[start : start + 4])

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the port's
        pool: str = "",
        ids: Sequence[str] | None = None,
    ) -> Iterator[Predictions]:
        asked = self.ids if ids is None else [ItemId(item_id) for item_id in ids]
        for start in range(0, len(asked), 3):
            some = asked[start : start + 3]
            self.predicted.append(len(some))
            yield self._answer(some, self.model, self.latest if round is None else round)

    def propagate(
        self, header: learner_pb2.PropagateHeader, examples: LabelledItems
    ) -> Iterator[tuple[Predictions, NDArray[np.float32]]]:
        self.seeds.append(examples)
        self.headers.append(header)
        for start in range(0, len(self.ids), 5):
            some = self.ids[start : start + 5]
            yield self._answer(some, self.propagated, 0), np.array(self.mass[start : start + 5], np.float32)

    def _answer(self, ids: Sequence[ItemId], shares: Sequence[float], round_number: int) -> Predictions:
        of_b = np.array([shares[self.ids.index(item_id)] for item_id in ids], np.float32)
        return Predictions(
            ids=ids,
            probabilities=np.stack([1 - of_b, of_b], axis=1),
            classes=CLASSES,
            round=round_number,
            pool_version=self.version,
        )
