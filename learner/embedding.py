"""Embed: a stream of texts into a stream of vectors, in the same order."""

import time
from collections.abc import Callable, Iterable, Iterator

from learner.encoders import EmbedOptions, Encoders
from learner.metrics import LearnerMetrics
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.types import Vectors

_ANSWER_BYTES = 1 << 20


class Embedder:
    """Embeds streams of texts. Safe to share between threads.

    Parameters
    ----------
    window_texts
        Texts gathered and sorted by length before any is answered. More: less padding, more memory, a longer wait for
        the first vectors.
    max_text_bytes
        Longest text taken.
    """

    def __init__(
        self,
        encoders: Encoders,
        *,
        metrics: LearnerMetrics,
        window_texts: int,
        max_text_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._encoders = encoders
        self._metrics = metrics
        self._window = window_texts
        self._max_text_bytes = max_text_bytes
        self._clock = clock

    def embed(self, texts: Iterable[str], options: EmbedOptions) -> Iterator[Vectors]:
        """Yield the vectors of `texts` (n, d) float32, in their order, in chunks.

        Raises
        ------
        InvalidArgument
            No encoder is named.
        FailedPrecondition
            The encoder cannot be loaded.
        ResourceExhausted
            A text is too long.
        """
        if not options.encoder:
            raise InvalidArgument("header.encoder", "is empty")
        encoder = self._encoders.get(options.encoder)
        for window in self._windows(texts):
            started = self._clock()
            vectors = encoder.embed(window, options)
            self._metrics.observe("embed", self._clock() - started)
            rows = max(1, _ANSWER_BYTES // (4 * vectors.shape[1]))
            for start in range(0, len(vectors), rows):
                yield vectors[start : start + rows]

    def _windows(self, texts: Iterable[str]) -> Iterator[list[str]]:
        window: list[str] = []
        for text in texts:
            if len(text) > self._max_text_bytes // 4 and len(text.encode()) > self._max_text_bytes:
                raise ResourceExhausted("the length of a text", limit=self._max_text_bytes, setting="max_text_bytes")
            window.append(text)
            if len(window) == self._window:
                yield window
                window = []
        if window:
            yield window
