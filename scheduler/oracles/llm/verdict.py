"""From what a model said of an item, once or several times, to an answer."""

from collections import Counter
from collections.abc import Sequence

from scheduler.domain.answers import Answer
from scheduler.domain.states import Outcome
from scheduler.oracles.llm.reading import Said
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2


def verdict(spec: scheduler_pb2.CampaignSpec, item: ItemId, said: Sequence[Said | None]) -> Answer:
    """Return one answer from some samples; None stands for one that was not valid.

    One class an item: the class that more than half of all samples say (self-consistency: Wang et al., ICLR 2023).
    Several: each class that more than half say, if every class is so decided. The confidence is the share of samples
    that say exactly this, times the mean of the confidences that those report. Without such a class, below
    `min_confidence`, or where half or more cannot tell, the model abstains, and people get the item.
    """
    asked = len(said)
    valid = [one for one in said if one is not None]
    able = [one for one in valid if not one.cannot_tell]
    if not able:
        return _abstains(item, "it cannot tell" if valid else "no valid answer")
    classes = _decided(spec, able, asked)
    agreeing = [one.confidence for one in able if one.classes == classes]
    if classes is None or not agreeing:
        return _abstains(item, f"{asked} answers do not agree")
    confidence = len(agreeing) / asked * sum(agreeing) / len(agreeing)
    if confidence < spec.oracle.llm.min_confidence:
        return _abstains(item, "too little confidence", confidence)
    comment = f"{len(agreeing)} of {asked} answers agree" if asked > 1 else ""
    return Answer(item_id=item, classes=classes, confidence=confidence, comment=comment)


def _decided(spec: scheduler_pb2.CampaignSpec, able: Sequence[Said], asked: int) -> tuple[int, ...] | None:
    if spec.task != common_pb2.TASK_KIND_MULTILABEL:
        [(classes, votes)] = Counter(one.classes for one in able).most_common(1)
        return classes if 2 * votes > asked else None
    if 2 * len(able) <= asked:
        return None
    votes_of = Counter(index for one in able for index in one.classes)
    if any(2 * votes == len(able) for votes in votes_of.values()):
        return None
    return tuple(sorted(index for index, votes in votes_of.items() if 2 * votes > len(able)))


def _abstains(item: ItemId, why: str, confidence: float | None = None) -> Answer:
    return Answer(item_id=item, outcome=Outcome.CANNOT_TELL, confidence=confidence, comment=why)
