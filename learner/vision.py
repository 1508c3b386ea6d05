"""Encoders of images: any Hugging Face vision model, its last layer pooled into one vector an image."""

import io
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.text_encoder import Budget, EmbedOptions, Pooling, pooled, scaled
from sealpool.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from sealpool.runtime.logs import Logger
from sealpool.types import Vectors

MAX_PIXELS = 100_000_000
"""Of one image, decoded; a file of 1 MB may hold a billion. Larger ones are refused before they are decoded."""
_CPU_IMAGES = 32
_FIELD = "images"


def reads_images(model: Any) -> bool:
    """Whether a model of transformers takes images: by itself, or as one half (CLIP and its kin)."""
    return getattr(model, "main_input_name", "") == "pixel_values" or hasattr(model, "get_image_features")


class VisionEncoder:
    """A loaded encoder of images. Calls take turns in the model.

    A model with a half for texts (CLIP) answers with what that half can be compared to; others with their last layer,
    pooled as for texts; a convolutional one has no first token, only a mean.

    Parameters
    ----------
    batch_tokens
        Patches of images that go through the model at once; on a CPU at most 32 images.
    """

    takes = "images"

    def __init__(
        self, processor: Any, model: Any, *, name: str, device: torch.device, batch_tokens: int, log: Logger
    ) -> None:
        self._processor = processor
        self._model = model
        self._device = device
        self._name = name
        images = max(1, batch_tokens // _patches(model.config))
        self._budget = Budget(min(images, _CPU_IMAGES) if device.type == "cpu" else images, name=name, log=log)
        self._running = threading.Lock()

    def prepare(self, images: Sequence[bytes], *, first: int = 0) -> torch.Tensor:
        """Decode image files (PNG, JPEG, WebP …) and scale them: (n, 3, height, width) float32.

        Parameters
        ----------
        first
            Position of the first image, for errors to count from.

        Raises
        ------
        InvalidArgument
            Bytes that are no image; the message has their position.
        ResourceExhausted
            An image of more than MAX_PIXELS.
        FailedPrecondition
            Pillow is not installed.
        """
        parts = [
            self._processor(images=_decoded(image, position), return_tensors="pt")["pixel_values"]
            for position, image in enumerate(images, first)
        ]
        return torch.cat(parts)

    def run(self, pixels: torch.Tensor, options: EmbedOptions) -> Vectors:
        """Return one vector an image, (n, d) float32.

        Raises
        ------
        FailedPrecondition
            The first token is asked of a model without tokens.
        """

        def forward(rows: NDArray[np.int64]) -> torch.Tensor:
            return self._forward(pixels[torch.from_numpy(rows)], options)

        count = len(pixels)
        with self._running, torch.inference_mode():
            return self._budget.embed(np.arange(count), np.ones(count, np.int64), forward)

    def embed(self, images: Sequence[bytes], options: EmbedOptions) -> Vectors:
        """Return one vector an image, (n, d) float32, in the order of the images."""
        return self.run(self.prepare(images), options)

    def _forward(self, pixels: torch.Tensor, options: EmbedOptions) -> torch.Tensor:
        batch = pixels.to(self._device, next(self._model.parameters()).dtype)
        if hasattr(self._model, "get_image_features"):
            found = self._model.get_image_features(pixel_values=batch)
            vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
            return scaled(vectors.float(), options)
        last = self._model(pixel_values=batch).last_hidden_state
        if last.ndim == 3:
            return pooled(last, None, options)
        if options.pooling is Pooling.CLS:
            raise FailedPrecondition(f"encoder {self._name!r} has no first token; use the mean", field="header.pooling")
        return scaled(last.float().mean(dim=(2, 3)), options)


def _decoded(image: bytes, position: int) -> Any:
    """Return an image as RGB, turned upright as its camera says."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise FailedPrecondition('images need Pillow: pip install "sealpool[vision]"') from error
    try:
        with warnings.catch_warnings():
            # We have a limit of our own, and a warning may be an error to whoever runs this.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image)) as opened:
                pixels = opened.width * opened.height
                if pixels <= MAX_PIXELS:
                    return ImageOps.exif_transpose(opened).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ResourceExhausted(f"{_FIELD}: image {position}, in pixels,", limit=MAX_PIXELS, setting="") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidArgument(_FIELD, f"the bytes at position {position} are no image that can be read") from error
    raise ResourceExhausted(f"{_FIELD}: image {position} with {pixels:,} pixels", limit=MAX_PIXELS, setting="")


def _patches(config: Any) -> int:
    """Return how many patches an image has, as the configuration says; 256 where it does not."""
    config = getattr(config, "vision_config", config)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int) or not patch:
        return 256
    return max(1, (size // patch) ** 2)
