"""Hugging Face encoders: texts in, vectors out."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sealpool.errors import FailedPrecondition
from sealpool.runtime.logs import Logger
from sealpool.types import Vectors

_NO_LIMIT = 1 << 20
"""Tokenizers without a limit of their own say 10³⁰."""
_FIELD = "header.encoder"
_SHOWN = 256
"""Characters of a name that a message repeats."""


class Pooling(Enum):
    """How token vectors become one vector."""

    MEAN = "mean"  # over the tokens that are not padding
    CLS = "cls"  # the first token


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions:
    """How texts are embedded. `max_tokens` 0 means the encoder's own limit."""

    encoder: str
    pooling: Pooling = Pooling.MEAN
    normalize: bool = True
    max_tokens: int = 0


class Encoder:
    """A loaded encoder. Calls take turns: a tokenizer keeps its truncation between calls, and a GPU its memory.

    Parameters
    ----------
    batch_tokens
        Tokens, padding included, that go through the model at once.
    """

    def __init__(self, tokenizer: Any, model: Any, *, device: torch.device, batch_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._device = device
        self._batch_tokens = batch_tokens
        self._lock = threading.Lock()
        positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
        self._limit = min(int(tokenizer.model_max_length), int(positions), _NO_LIMIT)

    def embed(self, texts: Sequence[str], options: EmbedOptions) -> Vectors:
        """Return one vector a text, (n, d) float32, in the order of the texts.

        Texts are batched by length, so that little padding is computed.
        """
        limit = min(options.max_tokens or self._limit, self._limit)
        with self._lock, torch.inference_mode():
            tokens = self._tokenizer(list(texts), truncation=True, max_length=limit, padding=False)
            lengths = np.array([len(ids) for ids in tokens["input_ids"]])
            order = np.argsort(-lengths, kind="stable")
            vectors: Vectors | None = None
            for rows in _batches(order, lengths, self._batch_tokens):
                some = self._forward({name: [values[row] for row in rows] for name, values in tokens.items()}, options)
                if vectors is None:
                    vectors = np.empty((len(texts), some.shape[1]), np.float32)
                vectors[rows] = some
        if vectors is None:
            raise ValueError("no text to embed")
        return vectors

    def _forward(self, tokens: dict[str, Any], options: EmbedOptions) -> Vectors:
        batch = self._tokenizer.pad(tokens, return_tensors="pt").to(self._device)
        last = self._model(**batch).last_hidden_state.float()
        if options.pooling is Pooling.CLS:
            pooled = last[:, 0]
        else:
            mask = batch["attention_mask"][..., None].float()
            pooled = (last * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        if options.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        vectors: Vectors = pooled.cpu().numpy()
        return vectors


def _batches(order: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cut rows, longest first, into batches of at most `tokens` tokens as padded; a batch has one row at least."""
    start = 0
    while start < len(order):
        rows = max(1, tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


class Encoders:
    """Encoders by name, the last used kept loaded. Safe to share between threads.

    Parameters
    ----------
    keep
        How many stay loaded.
    allow_download
        Whether a name that is not on this machine is fetched from the Hugging Face hub.
    """

    def __init__(
        self, device: torch.device, *, keep: int, batch_tokens: int, allow_download: bool, log: Logger
    ) -> None:
        self._device = device
        self._keep = keep
        self._batch_tokens = batch_tokens
        self._allow_download = allow_download
        self._log = log
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Encoder] = OrderedDict()

    def get(self, name: str) -> Encoder:
        """Return an encoder, loading it if need be: a directory, or a model name that the cache has.

        Raises
        ------
        FailedPrecondition
            It cannot be loaded.
        """
        with self._lock:
            encoder = self._loaded.get(name)
            if encoder is None:
                encoder = self._loaded[name] = self._load(name)
            self._loaded.move_to_end(name)
            while len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
            return encoder

    def _load(self, name: str) -> Encoder:
        is_directory = os.path.isdir(name)  # noqa: PTH112 - Path.is_dir raises where a name is too long for a path
        if not is_directory and _is_path(name):
            raise FailedPrecondition(
                f"encoder: no such directory on the learner's machine: {name[:_SHOWN]}", field=_FIELD
            )
        # Here, because it takes 1.4 s that a learner which embeds nothing should not pay at start.
        from transformers import AutoModel, AutoTokenizer

        options = {"local_files_only": not self._allow_download, "trust_remote_code": False}
        half = torch.bfloat16 if self._device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
        dtype = half if self._device.type == "cuda" else torch.float32
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model = AutoModel.from_pretrained(name, dtype=dtype, **options)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            # The libraries' own words name hosts and options that callers do not have; they are for the log.
            self._log.warning("encoder cannot be loaded", encoder=name, reason=str(error).strip())
            problem = self._problem(error, is_directory=is_directory)
            raise FailedPrecondition(f"encoder {name[:_SHOWN]!r} {problem}", field=_FIELD) from error
        if tokenizer.pad_token is None:
            raise FailedPrecondition(f"encoder {name!r} has no padding token", field=_FIELD)
        return Encoder(tokenizer, model.to(self._device).eval(), device=self._device, batch_tokens=self._batch_tokens)

    def _problem(self, error: Exception, *, is_directory: bool) -> str:
        if is_directory:
            return "cannot be loaded: no readable model and tokenizer in the directory (the learner's log has why)"
        if not isinstance(error, OSError):
            return "cannot be loaded (the learner's log has why)"
        if self._allow_download:
            return "is not in the learner's cache and cannot be downloaded (the learner's log has why)"
        return "is not in the learner's cache; give a directory, or start the learner with --allow-download"


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path; one "/" may also part an owner from a model of the hub."""
    return name.startswith((".", "~", "/")) or name.endswith("/") or name.count("/") > 1
