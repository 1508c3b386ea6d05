"""Pools of the index server, as the learner needs them."""

from learner.checkpoints import Checkpoint
from learner.index_port import Index
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable
from sealpool.v1 import index_pb2


def usable_pool(index: Index, name: str) -> index_pb2.Pool:
    """Return a pool whose size and version are known, by its name or an alias; `spec.name` is its own name.

    Raises
    ------
    NotFound
        There is none of that name.
    Unavailable
        The index server is reading it from disk; until then it says size and version 0.
    FailedPrecondition
        The index server could not read it.
    """
    pool = index.get_pool(name)
    if pool.state == index_pb2.POOL_STATE_LOADING:
        raise Unavailable(f"pool {name!r} is being read from disk by the index server", field="pool")
    if pool.state == index_pb2.POOL_STATE_FAILED:
        raise FailedPrecondition(f"pool {name!r} cannot be used: {pool.engine_reason}", field="pool")
    return pool


def check_dimension(field: str, pool: index_pb2.Pool, checkpoint: Checkpoint) -> None:
    """Raise InvalidArgument if a model was trained on vectors of another dimension than a pool's; texts have none."""
    dimension = checkpoint.info.dimension
    if pool.spec.dimension != dimension and not checkpoint.classifier.needs_text:
        raise InvalidArgument(
            field,
            f"{pool.spec.name!r} has dimension {pool.spec.dimension:,}; the model of {checkpoint.info.campaign!r}, "
            f"round {checkpoint.info.round}, was trained on {dimension:,}",
        )
