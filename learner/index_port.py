"""What the learner asks of the index server."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2


class CandidateUpdate(Protocol):
    """What changed in a candidate pool since a version; see sealpool.client.CandidateUpdate."""

    @property
    def added(self) -> Items:
        """Items that came or were replaced."""

    @property
    def removed(self) -> list[ItemId]:
        """Items that left."""

    @property
    def info(self) -> common_pb2.CandidatePoolInfo:
        """The candidate pool now."""

    @property
    def base_version(self) -> int:
        """The version that the difference starts from; 0 voids what was held."""

    @property
    def pool_direction(self) -> NDArray[np.float32]:
        """(d,) mean unit vector of the unlabelled pool."""

    @property
    def pool_version(self) -> int:
        """Version of the pool."""


class Neighbours(Protocol):
    """Nearest items of some queries, query after query, nearest first; see sealpool.client.Neighbors."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(q,) how many of `ids` belong to each query."""

    @property
    def ids(self) -> Sequence[ItemId]:
        """The neighbours."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """(n,) parallel to `ids`: the similarity, or the distance in an L2 pool."""


class Index(Protocol):
    """What the learner asks of the index server. `sealpool.client.IndexClient` is one; errors are sealpool.errors."""

    def get_pool(self, name: str) -> index_pb2.Pool:
        """Return one pool; NotFound if there is none."""

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        """Return items in the order of `ids`; unknown ids are NotFound, or left out with `allow_missing`."""

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        """Yield all items in bounded chunks."""

    def search(self, pool: str, *, k: int, ids: Sequence[str] | None = None) -> Neighbours:
        """Return the k nearest other items of each item of `ids`, which the pool has, else NotFound."""

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[str] = ()
    ) -> list[ItemId]:
        """Draw up to `count` items outside the campaign's candidates, its labelled items and `exclude`."""

    def expand_candidates(
        self,
        pool: str,
        campaign: str,
        labelled_ids: Sequence[str],
        *,
        policy: common_pb2.PolicySpec,
        expand_from_ids: Sequence[str] | None = None,
        classes: Sequence[Sequence[int]] = (),
        held_version: int = 0,
        vectors: bool = True,
        payloads: bool = False,
        preview: bool = False,
    ) -> CandidateUpdate:
        """Tell what was labelled, get the difference of the candidate pool; as a `preview`, what it would be.

        A preview may be asked for by many threads at once. `classes` are parallel to `labelled_ids`, or empty.
        """
