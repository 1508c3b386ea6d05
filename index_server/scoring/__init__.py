"""Linear models scored where the vectors lie: the best n of many rows, without moving a vector."""

from index_server.scoring.model import LinearModel
from index_server.scoring.scan import Scored, score_rows
from index_server.scoring.strategies import STRATEGIES

__all__ = ["STRATEGIES", "LinearModel", "Scored", "score_rows"]
