"""Labelled texts with their vectors, and what is drawn of them for one trial."""

import gzip
import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.campaign import Trial
from benchmarks.titles import NoTitlesError, title_vectors
from learner.problem import Problem, Targets, Task, encode_targets
from sealpool.types import Vectors

OUT_OF_SCOPE = "oos"
"""CLINC150's class of texts that have no intent; a class of leftovers is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTexts:
    """Texts, parallel to `vectors` (n, d) and `targets`; `test` (n,) bool says which are held out."""

    name: str
    problem: Problem
    texts: tuple[str, ...]
    vectors: Vectors
    targets: Targets
    test: NDArray[np.bool_]

    def draw(self, seed: int, *, candidates: int, held_out: int, start: int = 0) -> Trial:
        """Return a trial of at most so many candidates and test texts, `start` of the candidates labelled."""
        return _trial(self, seed, self._drawn(seed, candidates=candidates, held_out=held_out), np.arange(start))

    def draw_rare(
        self, seed: int, concept: str, *, candidates: int, held_out: int, positives: int, negatives: int
    ) -> Trial:
        """Return a trial of one class against the rest that begins with so many positives and negatives."""
        has = self.has(concept)
        drawn = self._drawn(seed, candidates=candidates, held_out=held_out)
        known = has[drawn[0]]
        start = [np.flatnonzero(known)[:positives], np.flatnonzero(~known)[:negatives]]
        rare = replace(self, problem=Problem(task=Task.BINARY, classes=("rest", concept)), targets=has.astype(np.int64))
        return _trial(rare, seed, drawn, np.concatenate(start))

    def has(self, concept: str) -> NDArray[np.bool_]:
        """Return (n,) whether each text has a class."""
        column = self.problem.classes.index(concept)
        return self.targets[:, column].astype(np.bool_) if self.problem.multilabel else self.targets == column

    def only(self, classes: tuple[str, ...]) -> "LabelledTexts":
        """Return the texts of some classes of a set with one class a text."""
        columns = [self.problem.classes.index(name) for name in classes]
        rows = np.flatnonzero(np.isin(self.targets, columns))
        return replace(
            self,
            problem=replace(self.problem, classes=classes),
            texts=tuple(self.texts[row] for row in rows.tolist()),
            vectors=self.vectors[rows],
            targets=np.array([columns.index(column) for column in self.targets[rows].tolist()], np.int64),
            test=self.test[rows],
        )

    def _drawn(self, seed: int, *, candidates: int, held_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.random.default_rng(seed).permutation(len(self.texts))
        return order[~self.test[order]][:candidates], order[self.test[order]][:held_out]


def read_texts(file: Path, *, most: int, cache: Path) -> LabelledTexts:
    """Read the first `most` lines of a file of {"text", "labels", "split"}, and embed them or take what was kept.

    Raises
    ------
    NoTitlesError
        There is no such file, one of its splits is missing, or no encoder is installed.
    """
    if not file.is_file():
        raise NoTitlesError(f"there is no file {file.name}")
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        items = [json.loads(line) for line in islice(lines, most)]
    if {item["split"] for item in items} != {"train", "test"}:
        raise NoTitlesError(f"the first {len(items):,} texts of {file.name} are not of both splits, train and test")
    vectors = title_vectors(file, len(items), cache=cache)
    kept = [place for place, item in enumerate(items) if item["labels"] and OUT_OF_SCOPE not in item["labels"]]
    items = [items[place] for place in kept]
    classes = tuple(sorted({label for item in items for label in item["labels"]}))
    several = any(len(item["labels"]) > 1 for item in items)
    problem = Problem(task=Task.MULTILABEL if several else Task.MULTICLASS, classes=classes)
    place_of = {name: place for place, name in enumerate(classes)}
    return LabelledTexts(
        name=file.name.partition(".")[0],
        problem=problem,
        texts=tuple(item["text"] for item in items),
        vectors=vectors[kept],
        targets=encode_targets(problem, [[place_of[label] for label in item["labels"]] for item in items]),
        test=np.array([item["split"] == "test" for item in items]),
    )


def _trial(
    of: LabelledTexts, seed: int, drawn: tuple[NDArray[np.int64], NDArray[np.int64]], start: NDArray[np.int64]
) -> Trial:
    pool, test = drawn
    return Trial(
        problem=of.problem,
        vectors=of.vectors[pool],
        targets=of.targets[pool],
        texts=tuple(of.texts[row] for row in pool.tolist()),
        test_vectors=of.vectors[test],
        test_targets=of.targets[test],
        test_texts=tuple(of.texts[row] for row in test.tolist()),
        start=start,
        seed=seed,
    )
