"""What the scheduler needs of the services behind it. `sealpool.client` has the real ones.

Every method may be called from any thread, and raises the errors of `sealpool.errors`: Unavailable and
DeadlineExceeded where trying again is right.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sealpool.client import Neighbors, Predictions
from sealpool.types import ItemId, Items, LabelledItems, Vectors
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

    def search(
        self,
        pool: str,
        *,
        k: int,
        vectors: Vectors | None = None,
        ids: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        include_vectors: bool = False,
    ) -> Neighbors:
        """Return the k nearest items of each query; NotFound. A query by id never finds itself."""
        ...

    def upsert(self, pool: str, items: Items) -> index_pb2.UpsertResponse:
        """Add or replace items, all of them or none; durable on return. NotFound, InvalidArgument."""
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

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the field's name everywhere
        ids: Sequence[str] | None = None,
        vectors: Vectors | None = None,
        texts: Sequence[str] | None = None,
    ) -> Iterator[Predictions]:
        """Yield class probabilities of items, vectors or texts, one of these, in their order. NotFound: no model."""
        ...

    def cross_predict(
        self, header: learner_pb2.TrainHeader, examples: LabelledItems, *, folds: int
    ) -> Iterator[Predictions]:
        """Yield class probabilities of labelled items by models that had not seen their labels; FailedPrecondition."""
        ...

    def embed(
        self, items: Iterable[str | bytes], *, encoder: str, pooling: str, normalize: bool, max_tokens: int
    ) -> Iterator[Vectors]:
        """Yield vectors of texts or images in their order. FailedPrecondition: no such encoder."""
        ...
