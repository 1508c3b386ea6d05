"""Pools of the index server, as the scheduler needs them."""

from scheduler.ports import Index
from sealpool.errors import Unavailable
from sealpool.v1 import index_pb2


def read_pool(index: Index, name: str) -> index_pb2.Pool:
    """Return a pool that says how large it is, by its name or an alias.

    Raises
    ------
    NotFound
        There is none of that name.
    Unavailable
        The index server has just started and is reading it from disk; until then it says that it is empty.
    """
    pool = index.get_pool(name)
    if pool.state == index_pb2.POOL_STATE_LOADING:
        raise Unavailable(f"pool {name!r} is being read from disk by the index server", field="pool")
    return pool
