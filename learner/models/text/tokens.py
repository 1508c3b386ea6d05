"""Hugging Face encoders to be fine-tuned: loaded from this machine, told apart by fingerprint, and their tokens."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from learner.hugging_face import load_model, transformers
from learner.models.text.reading import Numbers, pad
from sealpool.errors import FailedPrecondition

FIELD = "header.model.text.encoder"
MOST_TOKENS = 512
"""The most tokens of a text that are read where no other number is asked for."""
_SHOWN = 256
"""Characters of a name that a message repeats."""
_ABOUT_THE_FILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""Entries of a configuration that say nothing about what the encoder computes."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A tokenizer and an encoder (AutoModel, float32, on the CPU), as they were published."""

    tokenizer: Any
    model: Any


LoadPretrained = Callable[[str], Pretrained]
"""Returns the encoder of a directory or name; raises FailedPrecondition where it cannot."""


def loader(*, allow_download: bool) -> LoadPretrained:
    """Return what loads encoders from a directory or from this machine's cache, and, if allowed, from the hub."""

    def load(name: str) -> Pretrained:
        auto = transformers()
        options = {"local_files_only": not allow_download, "trust_remote_code": False}
        try:
            tokenizer = auto.AutoTokenizer.from_pretrained(name, **options)
            model = load_model(name, dtype=torch.float32, allow_download=allow_download)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise FailedPrecondition(
                f"encoder {name[:_SHOWN]!r} {_problem(name, allow_download)}", field=FIELD
            ) from error
        return _checked(name, Pretrained(tokenizer, model))

    return load


load_local: LoadPretrained = loader(allow_download=False)


def _problem(name: str, allow_download: bool) -> str:
    if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long for a path
        return "cannot be loaded: no readable model and tokenizer in the directory"
    if allow_download:
        return "is neither a directory nor in the learner's cache, and cannot be downloaded"
    return (
        "is neither a directory on the learner's machine nor in its cache; give a directory, or start the learner with "
        "--allow-download"
    )


def _checked(name: str, pretrained: Pretrained) -> Pretrained:
    if getattr(pretrained.model.config, "is_encoder_decoder", False):
        raise FailedPrecondition(f"encoder {name[:_SHOWN]!r} is an encoder with a decoder", field=FIELD)
    if pretrained.tokenizer.pad_token_id is None:
        raise FailedPrecondition(f"encoder {name[:_SHOWN]!r} has no padding token", field=FIELD)
    return pretrained


def fingerprint(pretrained: Pretrained, *, weights: bool) -> NDArray[np.uint8]:
    """Return (32,) bytes that differ for encoders of another architecture, tokenizer or, if asked, other weights."""
    digest = hashlib.blake2b(digest_size=32)
    config = {key: value for key, value in pretrained.model.config.to_dict().items() if key not in _ABOUT_THE_FILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(json.dumps(sorted(pretrained.tokenizer.get_vocab().items())).encode())
    if weights:
        for name, values in sorted(pretrained.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(values.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return np.frombuffer(digest.digest(), np.uint8).copy()


class Tokens:
    """Turns texts into token numbers, cut to a limit; safe to share between threads."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self._padding = int(tokenizer.pad_token_id)
        self._limit = max_tokens
        # A fast tokenizer keeps the truncation of the call before, and fails where two threads change it at once.
        self._lock = threading.Lock()

    def of(self, texts: Sequence[str]) -> list[Numbers]:
        """Return the token numbers of each text; an empty one has a token at least, so that there is one to pool."""
        if not texts:
            return []
        with self._lock:
            tokens = self.tokenizer(list(texts), truncation=True, max_length=self._limit, padding=False)
        return [np.array(numbers or [self._padding], np.int32) for numbers in tokens["input_ids"]]

    def tensors(self, texts: Sequence[Numbers]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask (n, t) int64, padded on the right."""
        lengths = torch.tensor([len(numbers) for numbers in texts])
        padded = pad(texts, padding=self._padding)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return {"input_ids": padded, "attention_mask": mask.long()}


def token_limit(pretrained: Pretrained, asked: int) -> int:
    """Return how many tokens of a text are read: what is asked for, no more than the encoder can, MOST_TOKENS for 0."""
    positions = getattr(pretrained.model.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa and its kin count positions from one past the padding's number.
        tables = (part for name, part in pretrained.model.named_modules() if name.endswith("position_embeddings"))
        skipped = (getattr(table, "padding_idx", None) for table in tables)
        positions -= max((number + 1 for number in skipped if number is not None), default=0)
    able = [int(limit) for limit in (pretrained.tokenizer.model_max_length, positions) if limit and limit > 0]
    return min([asked or MOST_TOKENS, *able])
