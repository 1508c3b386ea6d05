"""What the scheduler needs of the services behind it. `sealpool.client` has the real ones.

Every method may be called from any thread, and raises the errors of `sealpool.errors`: Unavailable and
DeadlineExceeded where trying again is right.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from sealpool.types import ItemId, Items, LabelledItems
from sealpool.v1 import index_pb2, learner_pb2


class Index(Protocol):
    """The part of the index server that the scheduler uses."""

    def get_pool(self, name: str) -> index_pb2.Pool:
        """Describe a pool; NotFound."""
        ...

    def get_items(
        self,
        pool: str,
        ids: Sequence[ItemId],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        """Read items in the order of `ids`; NotFound unless `allow_missing`."""
        ...

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        """Read all items in bounded chunks; NotFound."""
        ...

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[ItemId] = ()
    ) -> list[ItemId]:
        """Draw up to `count` items that are not in `exclude`; the same pool, seed and exclude give the same."""
        ...

    def drop_candidates(self, pool: str, campaign: str) -> object:
        """Forget the campaign's candidate pool; harmless if there is none. NotFound: no such pool."""
        ...


class Learner(Protocol):
    """The part of the learner that the scheduler uses. Each call is idempotent under (campaign, round)."""

    def train(self, header: learner_pb2.TrainHeader, examples: LabelledItems) -> learner_pb2.TrainResult:
        """Train the round's model and keep it."""
        ...

    def evaluate(self, header: learner_pb2.EvaluateHeader, examples: LabelledItems) -> learner_pb2.EvaluateResponse:
        """Measure the round's model on held-out items."""
        ...

    def select(
        self,
        header: learner_pb2.SelectHeader,
        labelled_ids: Sequence[ItemId],
        expand_from: Sequence[bool],
        excluded_ids: Sequence[ItemId],
        *,
        classes: Sequence[Sequence[int]] = (),
    ) -> learner_pb2.SelectResponse:
        """Pick the round's batch. `expand_from` and `classes` are parallel to `labelled_ids`."""
        ...
