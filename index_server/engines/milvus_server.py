"""A Milvus server: the few calls that the engine `milvus` makes, and the collections that are this index server's.

They are made with pymilvus's messages and not with its MilvusClient. That tries a call again until its time is up,
where a search is to fail at once, and makes an object of every neighbour: 1,000 queries for 110 took twice as long.
"""

import base64
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from index_server.engines.milvus_messages import Keys, Messages, found_keys
from index_server.spec import Metric
from sealpool.durable import write_durably
from sealpool.errors import InvalidArgument, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.types import Vectors

MAX_FETCH: Final = 16_384
"""Neighbours that Milvus gives of one query."""
LEAST_INDEXED: Final = 1024
"""Milvus does not index fewer."""
_WRITE_TIMES: Final = 6
"""Writing and indexing may take so many times longer than a search."""
_KEY, _VECTOR = "key", "vector"
_DEFAULT_PORT: Final = 19_530
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
]


class MilvusIndex(StrEnum):
    """How Milvus indexes a collection."""

    HNSW = "HNSW"
    FLAT = "FLAT"
    AUTOINDEX = "AUTOINDEX"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a collection is made for."""

    dimension: int
    metric: Metric
    index: MilvusIndex
    parameters: Mapping[str, int]
    """Of its index."""


def server_identity(path: Path, fresh: str) -> str:
    """Return what is kept at `path`, the name by which an index server knows its collections; at first `fresh`."""
    if not path.exists():
        write_durably(path, fresh.encode())
    return path.read_text()


class MilvusServer:
    """One Milvus, which others may use too.

    Collections are named prefix_owner_start_number. One that begins with prefix_owner and is not in use is a remainder
    of an index server that was killed, or that could not reach Milvus when it let go of it, and is dropped: those of
    earlier starts once, before the first collection is made, so that two servers that should not be of one owner do not
    go on dropping each other's.

    Threads: any.

    Parameters
    ----------
    uri
        http://host:port, or https:// for TLS, with /database where it is not the default one.
    token
        "user:password" or an API key; "" for none.
    owner
        Names this index server, the same after a restart. No two should run with the same prefix and owner.
    start
        Names this start of it.
    timeout_s
        How long a search may take.

    Raises
    ------
    FailedPrecondition
        pymilvus is not installed.
    InvalidArgument
        `uri` is none.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str,
        prefix: str,
        owner: str,
        start: str,
        index: MilvusIndex,
        timeout_s: float,
        log: Logger,
    ) -> None:
        self._messages = Messages.load()
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument("milvus_uri", "is not http://host:port or https://host:port")
        if parts.username is not None:
            raise InvalidArgument("milvus_uri", "names a user: what Milvus asks for belongs in milvus_token_file")
        self.index = index
        self.timeout_s = timeout_s
        self.log = log
        self._left = f"{prefix}_{owner}_"
        """How the names begin of what is ours to drop."""
        self._mine = f"{self._left}{start}_"
        self._numbers = itertools.count()
        self._database = parts.path.strip("/") or "default"
        self._metadata = [("authorization", base64.b64encode(token.encode()).decode())] if token else []
        target = f"{parts.hostname}:{parts.port or _DEFAULT_PORT}"
        if parts.scheme == "https":
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=_CHANNEL)
        else:
            self._channel = grpc.insecure_channel(target, options=_CHANNEL)
        self._stub = self._messages.services.MilvusServiceStub(self._channel)
        self._guard = threading.Lock()
        self._in_use: set[str] = set()

    def create(self, shape: Shape) -> str:
        """Make a collection that can be written to and searched, drop remainders, and return its name.

        Raises
        ------
        Unavailable
            Milvus is away or refused. Likewise all methods below.
        """
        self._drop_remainders()
        with self._guard:
            name = f"{self._mine}{next(self._numbers)}"
            self._in_use.add(name)
        created = False
        try:
            schema = self._messages.collection(name, key=_KEY, vector=_VECTOR, dimension=shape.dimension)
            self._call("CreateCollection", collection_name=name, schema=schema, slow=True)
            index = self._messages.index(shape.index.value, shape.metric, shape.parameters)
            place = {"collection_name": name, "field_name": _VECTOR, "index_name": _VECTOR}
            self._call("CreateIndex", **place, extra_params=index, slow=True)
            self.load(name)
            created = True
        finally:
            if not created:
                self.forget(name)
        return name

    def exists(self, name: str) -> bool:
        """Whether Milvus has the collection."""
        return name in self._names()

    def load(self, name: str) -> None:
        """Let the collection be searched, which it need not be after Milvus was started again."""
        self._call("LoadCollection", collection_name=name, replica_number=1, slow=True)

    def count(self, name: str, timestamp: int) -> int:
        """Return the number of vectors in the collection."""
        answer = self._call(
            "Query",
            collection_name=name,
            expr="",
            output_fields=["count(*)"],
            guarantee_timestamp=timestamp,
            consistency_level=self._messages.common.ConsistencyLevel.Customized,
            slow=True,
        )
        return int(answer.fields_data[0].scalars.long_data.data[0])

    def insert(self, name: str, keys: Keys, vectors: Vectors) -> int:
        """Add vectors (n, d); return the time from which on a search sees them. They must fit in one message."""
        columns = [self._messages.key_column(_KEY, keys), self._messages.vector_column(_VECTOR, vectors)]
        answer = self._call("Insert", collection_name=name, num_rows=len(keys), fields_data=columns, slow=True)
        return int(answer.timestamp)

    def delete(self, name: str, keys: Keys) -> None:
        """Delete vectors."""
        self._call("Delete", collection_name=name, expr=f"{_KEY} in {keys.tolist()}", slow=True)

    def seal(self, name: str) -> None:
        """Let Milvus index what was inserted."""
        self._call("Flush", collection_names=[name], slow=True)

    def indexed(self, name: str, rows: int) -> bool:
        """Whether `rows` vectors, about, are searched by their index, and no more are on the way."""
        answer = self._call("DescribeIndex", collection_name=name, field_name=_VECTOR, index_name=_VECTOR)
        done = self._messages.common.IndexState.Finished
        states = list(answer.index_descriptions)
        built = all(each.state == done and each.total_rows >= rows and not each.pending_index_rows for each in states)
        return built and self._searched(name, rows)

    def _searched(self, name: str, rows: int) -> bool:
        """Whether an index that was built is in use. In 2.3.5 that came 7 s later."""
        try:
            answer = self._call("GetQuerySegmentInfo", database="dbName", collectionName=name)
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.UNIMPLEMENTED:
                return True  # milvus-lite indexes while it loads
            raise
        plain = self.index is MilvusIndex.FLAT
        used: list[int] = [
            each.num_rows for each in answer.infos if plain or each.indexID or each.num_rows < LEAST_INDEXED
        ]
        return sum(used) >= rows

    def search(
        self,
        name: str,
        queries: Vectors,
        fetch: int,
        *,
        metric: Metric,
        parameters: Mapping[str, int],
        below: int | None,
        timestamp: int,
    ) -> Keys:
        """Return the keys of the `fetch` nearest vectors of each query, nearest first: (q, fetch), −1 for none.

        Parameters
        ----------
        parameters
            Of the search in this kind of index.
        below
            Only keys below it count.
        timestamp
            What was inserted up to then is seen.
        """
        common = self._messages.common
        answer = self._call(
            "Search",
            collection_name=name,
            dsl="" if below is None else f"{_KEY} < {below}",
            dsl_type=common.DslType.BoolExprV1,
            placeholder_group=self._messages.queries(queries),
            search_params=self._messages.search(_VECTOR, fetch, metric, parameters),
            nq=len(queries),
            guarantee_timestamp=timestamp,
            consistency_level=common.ConsistencyLevel.Customized,
        )
        return found_keys(answer.results, len(queries), fetch)

    def forget(self, name: str, *, reachable: bool = True) -> None:
        """Let go of a collection: it is dropped now, or, unless Milvus is `reachable`, with the remainders."""
        with self._guard:
            self._in_use.discard(name)
        if not reachable:
            return
        try:
            self._call("DropCollection", collection_name=name)
        except Unavailable as error:
            self.log.warning("milvus collection left behind", collection=name, reason=error.message)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _drop_remainders(self) -> None:
        names = self._names()  # before: what another thread makes from now on is not among them
        with self._guard:
            left = [name for name in names if name.startswith(self._left) and name not in self._in_use]
            self._left = self._mine
        for name in left:
            self.forget(name)

    def _names(self) -> list[str]:
        return list(self._call("ShowCollections").collection_names)

    def _call(self, method: str, *, slow: bool = False, database: str = "db_name", **fields: Any) -> Any:
        request = getattr(self._messages.milvus, f"{method}Request")(**{database: self._database}, **fields)
        timeout_s = self.timeout_s * (_WRITE_TIMES if slow else 1)
        try:
            answer = getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise Unavailable(f"Milvus does not answer {method}: {error.code().name}, {error.details()}") from error
        except ValueError as error:  # grpc's for a channel that was closed
            raise Unavailable("the connection to Milvus is closed") from error
        status = getattr(answer, "status", answer)
        if status.code or status.error_code:
            raise Unavailable(f"Milvus refuses {method}: {status.reason} (code {status.code or status.error_code})")
        return answer
