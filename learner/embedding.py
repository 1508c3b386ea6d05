"""Embed: a stream of texts or images into a stream of vectors, in the same order."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from learner.encoders import EmbedOptions, Encoders
from learner.metrics import LearnerMetrics
from learner.text_encoder import TextEncoder, Tokens
from learner.vision import VisionEncoder
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.types import Vectors

_ANSWER_BYTES = 1 << 20
_WINDOW_IMAGES = 64
"""Images decoded at once: at 224 × 224 pixels 600 KB each."""

T = TypeVar("T")


class Embedder:
    """Embeds streams of texts or images. Safe to share between threads.

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

    def embed(self, items: Iterable[str | bytes], options: EmbedOptions) -> Iterator[Vectors]:
        """Yield the vectors of `items` (n, d) float32, in their order, in chunks.

        While one window is in the model, the next is read and made into tokens or pixels.

        Raises
        ------
        InvalidArgument
            No encoder is named, texts (str) for an encoder of images or images (bytes) for one of texts, bytes that
            are no image.
        FailedPrecondition
            The encoder cannot be loaded.
        ResourceExhausted
            A text is too long, or an image too large.
        """
        if not options.encoder:
            raise InvalidArgument("header.encoder", "is empty")
        encoder = self._encoders.get(options.encoder)
        if isinstance(encoder, VisionEncoder):
            windows = enumerate(_windows(_only_images(items), _WINDOW_IMAGES))
            prepared = (encoder.prepare(window, first=number * _WINDOW_IMAGES) for number, window in windows)
            yield from self._answers(prepared, lambda pixels: encoder.run(pixels, options))
        else:
            yield from self._embed_texts(encoder, items, options)

    def _embed_texts(
        self, encoder: TextEncoder, items: Iterable[str | bytes], options: EmbedOptions
    ) -> Iterator[Vectors]:
        def run(tokens: Tokens) -> Vectors:
            return encoder.run(tokens, options)

        windows = _windows(self._only_texts(items), self._window)
        yield from self._answers((encoder.prepare(window, options) for window in windows), run)

    def _answers(self, prepared: Iterator[T], run: Callable[[T], Vectors]) -> Iterator[Vectors]:
        for window in _one_ahead(prepared):
            started = self._clock()
            vectors = run(window)
            self._metrics.observe("embed", self._clock() - started)
            rows = max(1, _ANSWER_BYTES // (4 * vectors.shape[1]))
            for start in range(0, len(vectors), rows):
                yield vectors[start : start + rows]

    def _only_texts(self, items: Iterable[str | bytes]) -> Iterator[str]:
        for text in items:
            if isinstance(text, bytes):
                raise InvalidArgument("images", "this encoder reads texts")
            if len(text) > self._max_text_bytes // 4 and len(text.encode()) > self._max_text_bytes:
                raise ResourceExhausted("the length of a text", limit=self._max_text_bytes, setting="max_text_bytes")
            yield text


def _only_images(items: Iterable[str | bytes]) -> Iterator[bytes]:
    for image in items:
        if isinstance(image, str):
            raise InvalidArgument("texts", "this encoder reads images")
        yield image


def _windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    window: list[T] = []
    for item in items:
        window.append(item)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _one_ahead(values: Iterator[T]) -> Iterator[T]:
    """Yield `values`, each made in a thread while the one before it is in use."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="embed-read")
    coming: Future[T | None] = executor.submit(next, values, None)
    try:
        while (value := coming.result()) is not None:
            coming = executor.submit(next, values, None)
            yield value
    finally:
        # A caller that left may keep the reading thread until its stream ends; nobody waits for that.
        executor.shutdown(wait=False, cancel_futures=True)
