"""The labelled set of a Select, as strategies see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learner.contexts import make_labelled
from learner.ports import Classifier, LabelledView
from learner.problem import Problem, check_labels, encode_targets
from learner.vectors import VectorReader
from sealpool.errors import InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import index_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledReader:
    """Reads labelled items for strategies that look at them."""

    reader: VectorReader
    device: torch.device

    def read(
        self,
        pool: index_pb2.Pool,
        problem: Problem,
        classifier: Classifier | None,
        *,
        ids: Sequence[ItemId],
        classes: Mapping[ItemId, tuple[int, ...]],
        needs_classes: bool,
    ) -> LabelledView:
        """Return those labelled items that the pool still has, in the order of their ids.

        Raises
        ------
        InvalidArgument
            Classes are needed and were not given, or do not fit the task.
        FailedPrecondition
            An item has no text, and the model reads texts.
        """
        ordered = sorted(ids)
        if needs_classes and ordered and not classes:
            raise InvalidArgument(
                "label_counts", "are missing, and the strategy looks at the classes of labelled items"
            )
        reads_text = classifier is not None and classifier.needs_text
        found = self.reader.read(pool, ordered, texts=reads_text)
        labels = [classes[ordered[row]] for row in found.rows] if classes else []
        check_labels(problem, labels, field="labels")
        return make_labelled(
            torch.from_numpy(found.vectors).to(self.device),
            encode_targets(problem, labels) if classes or not ordered else np.empty(0, np.int64),
            texts=found.texts,
            classifier=classifier,
        )
