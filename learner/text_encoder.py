"""Encoders of texts: token vectors of a Hugging Face model, pooled into one vector a text."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CancelCheck
from sealpool.errors import Cancelled, ResourceExhausted
from sealpool.runtime.logs import Logger
from sealpool.types import Vectors

_NO_LIMIT = 1 << 20
"""Tokenizers without a limit of their own say 10³⁰."""
_CPU_TOKENS = 2_048
"""Most tokens at once on a CPU: past the caches nothing is gained. Measured with MiniLM (1,536 hidden units): in a
layer's feed-forward part a token takes 17 µs at 2,048 tokens and 25 at 8,192, whose activations are 50 MB of fresh
memory."""


class Pooling(Enum):
    """How token vectors become one vector."""

    MEAN = "mean"  # over the tokens that are not padding
    CLS = "cls"  # the first token


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions:
    """How items are embedded. `max_tokens` 0 means the encoder's own limit; images have none."""

    encoder: str
    pooling: Pooling = Pooling.MEAN
    normalize: bool = True
    max_tokens: int = 0


class Budget:
    """How much goes through a model at once: halved, for good, each time that GPU memory runs out.

    Parameters
    ----------
    size
        In what the items cost: tokens, or images.
    """

    def __init__(self, size: int, *, name: str, log: Logger) -> None:
        self.size = size
        self._name = name
        self._log = log

    def embed(
        self,
        order: NDArray[np.int64],
        costs: NDArray[np.int64],
        forward: Callable[[NDArray[np.int64]], torch.Tensor],
        *,
        cancelled: CancelCheck = lambda: False,
    ) -> Vectors:
        """Run all rows of `order`, the dearest first, through `forward`; return (n, d) float32 by row.

        A batch of b rows costs b times its first; it has one row at least.

        Raises
        ------
        ResourceExhausted
            GPU memory does not hold a batch of one.
        Cancelled
            `cancelled` said so; asked before each batch.
        """
        vectors: torch.Tensor | None = None
        start = 0
        while start < len(order):
            if cancelled():
                raise Cancelled("embedding was stopped")
            rows = order[start : start + max(1, self.size // max(1, int(costs[order[start]])))]
            try:
                some = forward(rows)
            except torch.OutOfMemoryError as error:
                self._halve(len(rows) * int(costs[rows[0]]), len(rows), error)
                continue
            if vectors is None:
                vectors = torch.empty((len(order), some.shape[1]), dtype=torch.float32, device=some.device)
            vectors[torch.from_numpy(rows).to(some.device)] = some
            start += len(rows)
        if vectors is None:
            raise ValueError("nothing to embed")
        # One copy at the end: on a GPU the next batch is prepared while this one is computed.
        result: Vectors = vectors.cpu().numpy()
        return result

    def _halve(self, cost: int, rows: int, error: torch.OutOfMemoryError) -> None:
        if rows == 1:
            raise ResourceExhausted("GPU memory for one item", limit=self.size, setting="") from error
        self.size = max(1, min(self.size, cost) // 2)
        self._log.warning(
            "out of GPU memory: embedding goes on with half the batch", encoder=self._name, batch=self.size
        )
        torch.cuda.empty_cache()


def pooled(last: torch.Tensor, mask: torch.Tensor | None, options: EmbedOptions) -> torch.Tensor:
    """Turn the last layer (n, t, h) into vectors (n, h) float32; `mask` (n, t) is 0 for padding, None for none."""
    last = last.float()
    if options.pooling is Pooling.CLS:
        vectors = last[:, 0]
    elif mask is None:
        vectors = last.mean(dim=1)
    else:
        weights = mask[..., None].float()
        vectors = (last * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    return scaled(vectors, options)


def scaled(vectors: torch.Tensor, options: EmbedOptions) -> torch.Tensor:
    """Scale vectors (n, h) to length 1 where the options say so."""
    return torch.nn.functional.normalize(vectors, dim=1) if options.normalize else vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Texts as tokens, one after another without padding.

    `lengths` (n,) int64; each of `columns` ("input_ids" and what else the model reads) is (lengths.sum(),) int64.
    """

    lengths: NDArray[np.int64]
    columns: dict[str, NDArray[np.int64]]


class TextEncoder:
    """A loaded encoder of texts. Calls take turns: a tokenizer keeps its truncation between calls, a GPU its memory.

    Parameters
    ----------
    batch_tokens
        Tokens, padding included, that go through the model at once; on a CPU at most 2,048, which is faster.
    """

    takes = "texts"

    def __init__(
        self, tokenizer: Any, model: Any, *, name: str, device: torch.device, batch_tokens: int, log: Logger
    ) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._device = device
        self._pad = int(tokenizer.pad_token_id)
        self._budget = Budget(
            min(batch_tokens, _CPU_TOKENS) if device.type == "cpu" else batch_tokens, name=name, log=log
        )
        self._tokenizing, self._running = threading.Lock(), threading.Lock()
        config = model.config
        positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
        self._limit = min(int(tokenizer.model_max_length), int(positions), _NO_LIMIT)
        self.dimension = int(config.hidden_size)

    def prepare(self, texts: Sequence[str], options: EmbedOptions) -> Tokens:
        """Return the texts' tokens. May run while another thread is in `run`."""
        limit = min(options.max_tokens or self._limit, self._limit)
        with self._tokenizing:
            tokens = self._tokenizer(
                list(texts), truncation=True, max_length=limit, padding=False, return_attention_mask=False
            )
        lengths = np.array([len(ids) for ids in tokens["input_ids"]], np.int64)
        flat = {name: np.concatenate([np.asarray(row, np.int64) for row in rows]) for name, rows in tokens.items()}
        # All zero for one text alone, which is what models take where they get none.
        return Tokens(lengths=lengths, columns={n: c for n, c in flat.items() if n == "input_ids" or c.any()})

    def run(self, tokens: Tokens, options: EmbedOptions, *, cancelled: CancelCheck = lambda: False) -> Vectors:
        """Return one vector a text, (n, d) float32. Texts are batched by length, so that little padding is computed."""
        starts = np.cumsum(tokens.lengths) - tokens.lengths
        order = np.argsort(-tokens.lengths, kind="stable")

        def forward(rows: NDArray[np.int64]) -> torch.Tensor:
            return self._forward(tokens, starts[rows], tokens.lengths[rows], options)

        with self._running, torch.inference_mode():
            return self._budget.embed(order, tokens.lengths, forward, cancelled=cancelled)

    def embed(self, texts: Sequence[str], options: EmbedOptions, *, cancelled: CancelCheck = lambda: False) -> Vectors:
        """Return one vector a text, (n, d) float32, in the order of the texts; see `run`."""
        return self.run(self.prepare(texts, options), options, cancelled=cancelled)

    def _forward(
        self, tokens: Tokens, starts: NDArray[np.int64], lengths: NDArray[np.int64], options: EmbedOptions
    ) -> torch.Tensor:
        places = np.arange(max(1, int(lengths.max())))
        real = places < lengths[:, None]
        at = np.where(real, starts[:, None] + places, 0)
        batch = {
            name: torch.from_numpy(np.where(real, column[at], self._pad if name == "input_ids" else 0)).to(self._device)
            for name, column in tokens.columns.items()
        }
        # Without padding no mask: attention kernels without one are faster on a GPU.
        mask = None if real.all() else torch.from_numpy(real.astype(np.int64)).to(self._device)
        return pooled(self._model(**batch, attention_mask=mask).last_hidden_state, mask, options)
