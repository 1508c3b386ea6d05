"""How right labels of the rest of a pool are, by an audit: items drawn at random that people labelled too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import FailedPrecondition
from sealpool.rest.manifest import need_manifest
from sealpool.rest.parts import decisions_in, read_parts
from sealpool.rest.people import LabelSource
from sealpool.statistics import Share
from sealpool.v1 import scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassEstimate:
    """Of one class: how many of the audited labels that say it are right, and how many of its items are found."""

    name: str
    right_where_said: Share
    found_where_true: Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What an audit says of a directory of labels.

    Parameters
    ----------
    drawn, outstanding
        Items of the audit, and those of them that people have not labelled yet.
    rest, given
        Items that nobody has labelled, and those of them that the rule gave a label.
    everything
        Of the audited items, whatever the confidence: how many are taken for what they are (multi-label: all classes).
    given_only
        Of the audited items that the rule gives a label: how many of those labels are right.
    classes
        Each class among the labels that were given.
    """

    drawn: int
    outstanding: int
    rest: int
    given: int
    everything: Share
    given_only: Share
    classes: Sequence[ClassEstimate]

    @property
    def coverage(self) -> float:
        """The share of the rest that has a label; NaN where there is no rest."""
        return self.given / self.rest if self.rest else math.nan


def estimate(directory: Path, *, scheduler: LabelSource, audit: int = 0) -> Estimate:
    """Judge the labels of a directory by the audit labels that have come so far.

    The items were drawn at random among the unlabelled ones, so the shares estimate those of the rest of the pool as it
    was then. Rounds since have picked from the others alone: where they took what is hard, the shares are somewhat low
    for the rest as it is now. Audited items that came into the labelled set since are left out: a model may have seen
    their labels.

    Parameters
    ----------
    audit
        Ask for so many items in all first; 0 for no more than were asked for before.

    Raises
    ------
    NotFound
        There are no labels in the directory, or no such campaign.
    FailedPrecondition
        They are not complete.
    """
    manifest = need_manifest(directory)
    if not manifest.complete:
        raise FailedPrecondition(f"the labels in {directory} are not complete: run label-rest again")
    campaign = manifest.request.campaign
    asked = max(audit, manifest.audit)
    audits = {
        label.item_id: tuple(label.classes)
        for label in scheduler.list_labels(campaign, purpose=scheduler_pb2.LABEL_PURPOSE_AUDIT, only_effective=True)
    }
    drawn, answered = len(audits), len(audits)
    if asked:
        answer = scheduler.draw_audit(campaign, items=asked)
        drawn, answered = answer.drawn, answer.labelled
    trained_on = {label.item_id for label in scheduler.list_labels(campaign)}
    columns = {name: number for number, name in enumerate(manifest.classes)}
    truths, saids, givens = [], [], []
    for table in read_parts(directory, manifest):
        ids = table.column("id").to_pylist()
        rows = [row for row, item_id in enumerate(ids) if item_id in audits and item_id not in trained_on]
        if not rows:
            continue
        decisions = decisions_in(manifest, table.take(rows))
        truth = np.zeros((len(rows), len(columns)), np.bool_)
        for place, row in enumerate(rows):
            truth[place, [columns[name] for name in audits[ids[row]]]] = True
        truths.append(truth)
        saids.append(decisions.labels)
        givens.append(decisions.given)
    empty = np.empty((0, len(columns)), np.bool_)
    truth, said = np.concatenate([empty, *truths]), np.concatenate([empty, *saids])
    given = np.concatenate([np.empty(0, np.bool_), *givens])
    right = (truth == said).all(axis=1)
    return Estimate(
        drawn=drawn,
        outstanding=max(0, drawn - answered),
        rest=manifest.rows - manifest.by_people,
        given=manifest.labelled,
        everything=_share(right),
        given_only=_share(right[given]),
        classes=[
            _of_class(name, truth[:, column], said[:, column], given) for column, name in enumerate(manifest.classes)
        ],
    )


def _of_class(name: str, truth: NDArray[np.bool_], said: NDArray[np.bool_], given: NDArray[np.bool_]) -> ClassEstimate:
    # An item below the cut has no label, so it was not found.
    told = said & given
    return ClassEstimate(name=name, right_where_said=_share(truth[told]), found_where_true=_share(told[truth]))


def _share(right: NDArray[np.bool_]) -> Share:
    return Share(right=int(right.sum()), of=len(right))
