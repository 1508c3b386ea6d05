"""A Neighbourhood of plain NumPy: every score in float64, by brute force."""

import numpy as np

from index_server.spec import Metric


class BruteForceNeighbourhood:
    """`live` of the rows of `vectors` (n, d), all of them by default. `searches` keeps (rows, k) of each search."""

    def __init__(self, metric, vectors, *, live=None):
        self.metric = metric
        self.searches = []
        self._vectors = np.asarray(vectors, np.float32)
        self._live = np.arange(len(self._vectors)) if live is None else np.asarray(live, np.int64)
        if metric is Metric.COSINE:
            lengths = np.linalg.norm(self._vectors.astype(np.float64), axis=1, keepdims=True)
            self._vectors = (self._vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def live_rows(self):
        return self._live.copy()

    def vectors(self, rows):
        return self._vectors[rows]

    def score(self, row, other):
        """Return the score of two rows as float32."""
        one, two = self._vectors[[row, other]].astype(np.float64)
        return np.float32(np.sqrt(((one - two) ** 2).sum()) if self.metric is Metric.L2 else (one * two).sum())

    def nearest(self, rows, k):
        self.searches.append((rows.tolist(), k))
        neighbors = np.full((len(rows), k), -1, np.int64)
        scores = np.full((len(rows), k), np.nan, np.float32)
        for place, row in enumerate(rows.tolist()):
            others = [other for other in self._live.tolist() if other != row]
            sign = -1 if self.metric.higher_is_nearer else 1
            ranked = sorted((sign * self.score(row, other), other) for other in others)[:k]
            neighbors[place, : len(ranked)] = [other for _, other in ranked]
            scores[place, : len(ranked)] = [sign * score for score, _ in ranked]
        return neighbors, scores
