"""Hugging Face encoders by name: texts or images in, vectors out."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError

from learner.hugging_face import load_model, transformers
from learner.text_encoder import EmbedOptions, Pooling, TextEncoder
from learner.vision import VisionEncoder, reads_images
from sealpool.errors import FailedPrecondition
from sealpool.runtime.logs import Logger

__all__ = ["EmbedOptions", "Encoder", "Encoders", "HasEncoder", "Pooling"]

_FIELD = "header.encoder"
_SHOWN = 256
"""Characters of a name that a message repeats."""

Encoder = TextEncoder | VisionEncoder


class HasEncoder(Protocol):
    """What a checkpoint's classifier must be for its encoder to be taken out of it."""

    def encoder(self) -> tuple[Any, Any]:
        """Return the tokenizer and the model, without its classification head."""


class Encoders:
    """Encoders by name, the last used kept loaded. Safe to share between threads.

    Parameters
    ----------
    keep
        How many stay loaded.
    batch_tokens
        Tokens, padding included, that go through a model at once; a patch of an image counts as one.
    allow_download
        Whether a name that is not on this machine is fetched from the Hugging Face hub.
    compile_models
        Whether models go through torch.compile on a GPU; the first batches are slow then. No meaning on a CPU.
    classifier_of
        Returns the classifier of a checkpoint by campaign and round; raises NotFound if there is none.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        keep: int,
        batch_tokens: int,
        allow_download: bool,
        log: Logger,
        compile_models: bool = False,
        classifier_of: Callable[[str, int], object] | None = None,
    ) -> None:
        self._device = device
        self._keep = keep
        self._batch_tokens = batch_tokens
        self._allow_download = allow_download
        self._log = log
        self._compile = compile_models and device.type == "cuda"
        self._classifier_of = classifier_of
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

    def of_checkpoint(self, campaign: str, round_number: int) -> TextEncoder:
        """Return the encoder that was fine-tuned in a round. It is not kept loaded.

        Raises
        ------
        NotFound
            There is no such checkpoint.
        FailedPrecondition
            Its model has no encoder of texts.
        """
        if self._classifier_of is None:
            raise FailedPrecondition("this learner takes no encoders out of checkpoints", field="checkpoint")
        classifier = self._classifier_of(campaign, round_number)
        if not hasattr(classifier, "encoder"):
            raise FailedPrecondition(
                f"the model of {campaign!r}, round {round_number}, is no transformer: it has no encoder of texts",
                field="checkpoint",
            )
        tokenizer, model = cast(HasEncoder, classifier).encoder()
        return self._of_texts(f"{campaign}, round {round_number}", tokenizer, model)

    def _load(self, name: str) -> Encoder:
        is_directory = os.path.isdir(name)  # noqa: PTH112 - Path.is_dir raises where a name is too long for a path
        if not is_directory and _is_path(name):
            raise FailedPrecondition(
                f"encoder: no such directory on the learner's machine: {name[:_SHOWN]}", field=_FIELD
            )
        auto = transformers()
        options = {"local_files_only": not self._allow_download, "trust_remote_code": False}
        try:
            model = load_model(name, dtype=self._dtype(), allow_download=self._allow_download)
            for_images = reads_images(model)
            before = (auto.AutoImageProcessor if for_images else auto.AutoTokenizer).from_pretrained(name, **options)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            # The libraries' own words name hosts and options that callers do not have; they are for the log.
            self._log.warning("encoder cannot be loaded", encoder=name, reason=str(error).strip())
            problem = self._problem(error, is_directory=is_directory)
            raise FailedPrecondition(f"encoder {name[:_SHOWN]!r} {problem}", field=_FIELD) from error
        if not for_images:
            return self._of_texts(name, before, model)
        return VisionEncoder(
            before, self._placed(model), name=name, device=self._device, batch_tokens=self._batch_tokens, log=self._log
        )

    def _of_texts(self, name: str, tokenizer: Any, model: Any) -> TextEncoder:
        if tokenizer.pad_token is None:
            raise FailedPrecondition(f"encoder {name!r} has no padding token", field=_FIELD)
        return TextEncoder(
            tokenizer,
            self._placed(model),
            name=name,
            device=self._device,
            batch_tokens=self._batch_tokens,
            log=self._log,
        )

    def _placed(self, model: Any) -> Any:
        placed = model.to(self._device, self._dtype()).eval()
        if self._compile:
            # In place, so that the model keeps its configuration. Lengths differ from batch to batch.
            placed.compile(dynamic=True)
        return placed

    def _dtype(self) -> torch.dtype:
        if self._device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

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
