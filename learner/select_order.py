"""What Select is asked for, and what it answers."""

from dataclasses import dataclass
from enum import Enum

from learner.options import StrategyOptions
from learner.problem import Problem
from sealpool.types import ItemId
from sealpool.v1 import common_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectOrder:
    """The header of Select, checked. `policy` goes to the index server as it is; it says when candidates grow.

    Parameters
    ----------
    problem
        Where there is no model yet; None where the round has a checkpoint, which knows.
    """

    campaign: str
    round: int
    pool: str
    strategy: StrategyOptions
    policy: common_pb2.PolicySpec
    batch_size: int
    exploration: float
    fill_random: bool
    seed: int
    problem: Problem | None = None


class Origin(Enum):
    """Where a pick came from."""

    CANDIDATE = "candidate"
    EXPLORATION = "exploration"
    FILL = "fill"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """An item of the batch. `score` is 0 for what was drawn at random."""

    id: ItemId
    score: float
    origin: Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The batch of a round. `info.added` and `.removed` count what the learner took over in this round."""

    picks: list[Pick]
    info: common_pb2.CandidatePoolInfo
    expand_seconds: float
    score_seconds: float
    pool_version: int
    strategy: str
    strategy_reason: str
