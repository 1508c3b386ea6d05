"""What labels and proposed items make of a candidate pool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from index_server.candidates.state import CandidatePool, Change, Classes, Named, Standing
from index_server.ports import Proposal, Rows, Scores
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What a call tells a candidate pool that it did not know.

    Parameters
    ----------
    labelled, classes, expanded
        As in Change.
    cap
        The most candidates; 0 for none. Those leave whose score is worst, of equal ones the later.
    """

    pool_version: int
    labelled: Named
    classes: Sequence[tuple[ItemId, int, Classes]]
    expanded: Named
    proposal: Proposal
    cap: int
    higher_is_nearer: bool


def grow(candidates: CandidatePool, news: News, ids_at: Callable[[Rows], list[ItemId]]) -> Change | None:
    """Return the change that `news` makes, without making it; None for none.

    `ids_at` gives the ids of rows.
    """
    now_labelled = news.labelled.rows[news.labelled.rows >= 0]
    added, sources, scores = _eligible(candidates, news.proposal, now_labelled)
    leaving = now_labelled[candidates.standing(now_labelled) == Standing.CANDIDATE]
    if news.proposal.replaces:
        members = candidates.members()
        leaving = np.union1d(leaving, members[~np.isin(members, news.proposal.rows)])
    if news.cap:
        kept, evicted = _capped(candidates, added, scores, leaving, news)
        added, sources, scores = added[kept], sources[kept], scores[kept]
        leaving = np.concatenate([leaving, evicted])
    if not (len(added) or len(leaving) or len(news.labelled) or news.classes or len(news.expanded)):
        return None
    return Change(
        version=candidates.version + 1,
        pool_version=news.pool_version,
        added=added,
        sources=sources,
        scores=scores,
        removed=Named(ids=ids_at(leaving), rows=leaving),
        labelled=news.labelled,
        classes=news.classes,
        expanded=news.expanded,
    )


def _eligible(candidates: CandidatePool, proposal: Proposal, now_labelled: Rows) -> tuple[Rows, Rows, Scores]:
    """Return what of a proposal is new, none twice: rows, sources and scores."""
    _, first = np.unique(proposal.rows, return_index=True)
    first.sort()
    rows = proposal.rows[first]
    standing = candidates.standing(rows)
    new = (standing != Standing.CANDIDATE) & (standing != Standing.LABELLED) & ~np.isin(rows, now_labelled)
    return rows[new], proposal.sources[first][new], proposal.scores[first][new]


def _capped(
    candidates: CandidatePool, added: Rows, scores: Scores, leaving: Rows, news: News
) -> tuple[np.ndarray, Rows]:
    """Return which of `added` may come in, and which candidates give way."""
    members = candidates.members()
    members = members[~np.isin(members, leaving)]
    excess = len(members) + len(added) - news.cap
    if excess <= 0:
        return np.arange(len(added)), members[:0]
    sign = -1 if news.higher_is_nearer else 1
    badness = sign * np.concatenate([candidates.candidate_scores(members), scores])
    out = np.lexsort((np.arange(len(badness)), np.nan_to_num(badness, nan=np.inf)))[news.cap :]
    kept = np.setdiff1d(np.arange(len(added)), out - len(members))
    return kept, members[out[out < len(members)]]
