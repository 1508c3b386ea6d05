"""How a candidate pool grows, and that its journal brings back the same one."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from index_server.candidates.book import CampaignBook, Labels
from index_server.candidates.growth import News, grow
from index_server.candidates.journal import Journal
from index_server.candidates.state import CandidatePool, Named
from index_server.ports import PolicyOptions, Proposal
from index_server.spec import Metric
from index_server.table.item_table import ItemTable
from tests.support.pools import LIMITS

IDS = "abcdefghijklmnopqrstuvwxyz"


def rows_of(ids):
    return np.array([IDS.find(item_id) for item_id in ids], np.int64)


def ids_at(rows):
    return [IDS[row] for row in rows.tolist()]


def named(ids):
    return Named(ids=list(ids), rows=rows_of(ids))


def proposal(ids, scores=None, *, replaces=False):
    values = np.zeros(len(ids)) if scores is None else scores
    return Proposal(
        rows=rows_of(ids),
        sources=np.full(len(ids), -1),
        scores=np.array(values, np.float32),
        replaces=replaces,
    )


def grown(pool, proposed, *, labelled="", expanded="", cap=0, higher_is_nearer=True):
    news = News(
        pool_version=1,
        labelled=named(labelled),
        classes=[],
        expanded=named(expanded),
        proposal=proposed,
        cap=cap,
        higher_is_nearer=higher_is_nearer,
    )
    change = grow(pool, news, ids_at)
    if change is not None:
        pool.apply(change)
    return change


def pool_of(ids, scores=None):
    pool = CandidatePool(policy="seals", first_version=0)
    grown(pool, proposal(ids, scores), labelled="z")
    return pool


def members(pool):
    return "".join(ids_at(pool.members()))


def test_labelled_items_and_present_candidates_do_not_come_in_and_of_a_repeated_one_the_first_counts():
    pool = pool_of("a")
    change = grown(pool, proposal("aznbcb", [0, 0, 0, 1, 2, 3]), labelled="n")
    assert ids_at(change.added) == ["b", "c"]
    assert change.scores.tolist() == [1, 2]
    assert len(change.removed) == 0
    assert change.labelled.ids == ["n"]


def test_a_candidate_that_is_labelled_leaves():
    pool = pool_of("abc")
    assert grown(pool, proposal(""), labelled="b").removed.ids == ["b"]
    assert members(pool) == "ac"


def test_nothing_new_is_no_change_and_an_expansion_that_brings_nothing_is_one():
    pool = pool_of("a")
    assert grown(pool, proposal("az")) is None
    assert grown(pool, proposal("a"), expanded="z") is not None
    assert (pool.version, members(pool)) == (2, "a")
    assert pool.is_expanded(named("z")).tolist() == [True]


@pytest.mark.parametrize(("higher_is_nearer", "left"), [(True, "bd"), (False, "ac")])
def test_at_the_cap_the_farthest_leave_first_old_or_new(higher_is_nearer, left):
    pool = pool_of("ab", [0.1, 0.9])
    grown(pool, proposal("cd", [0.2, 0.8]), cap=2, higher_is_nearer=higher_is_nearer)
    assert members(pool) == left


def test_of_equally_far_ones_the_later_leave():
    pool = pool_of("ab", [0.5, 0.5])
    change = grown(pool, proposal("cd", [0.5, 0.7]), cap=2)
    assert (members(pool), ids_at(change.added), change.removed.ids) == ("ad", ["d"], ["b"])


def test_without_a_score_an_item_is_farther_than_any_with_one():
    pool = pool_of("ab", [np.nan, -3.0])
    grown(pool, proposal("c", [-9.0]), cap=2)
    assert members(pool) == "bc"


def test_labelled_candidates_do_not_count_at_the_cap():
    pool = pool_of("abc", [3, 2, 1])
    grown(pool, proposal("d", [0.5]), labelled="a", cap=3)
    assert members(pool) == "bcd"


def test_a_lower_cap_takes_out_candidates_though_nothing_comes_in():
    pool = pool_of("abc", [3, 1, 2])
    assert grown(pool, proposal(""), cap=2).removed.ids == ["b"]


def test_a_proposal_that_replaces_leaves_exactly_its_own():
    pool = pool_of("abc")
    change = grown(pool, proposal("dbz", replaces=True))
    assert (members(pool), sorted(change.removed.ids), ids_at(change.added)) == ("bd", ["a", "c"], ["d"])


class Line:
    """A neighbourhood in which items lie on a line in the order of their ids, whatever their rows."""

    metric = Metric.L2

    def __init__(self, table):
        self.table = table

    def live_rows(self):
        return self.table.live_rows()


class NextOnTheLine:
    """A policy that proposes the k items after each source, or, told so, only these."""

    name = "line"

    def __init__(self, *, replaces):
        self.replaces = replaces

    def propose(self, neighbourhood, growth):
        table = neighbourhood.table
        found = []
        for source, item_id in zip(growth.sources.tolist(), table.ids_at(growth.sources), strict=True):
            wanted = IDS[IDS.index(item_id) + 1 :][: growth.options.k]
            near = table.find(wanted).tolist()
            found += [(row, source, float(place % 3)) for place, row in enumerate(near) if row >= 0]
        rows, sources, scores = (np.array(column) for column in zip(*found, strict=True)) if found else ([], [], [])
        return Proposal(
            rows=np.array(rows, np.int64),
            sources=np.array(sources, np.int64),
            scores=np.array(scores, np.float32),
            replaces=self.replaces,
        )


FEW = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), FEW),
        st.tuples(st.just("delete"), FEW),
        st.tuples(st.just("rebuild"), st.just([])),
        st.tuples(st.just("label"), FEW),
        st.tuples(st.just("expand"), FEW),
        st.tuples(st.just("replace all"), FEW),
        st.tuples(st.just("cap"), FEW),
    ),
    min_size=2,
    max_size=14,
)


class Lived:
    """A campaign that lives through changes of items, and its journal."""

    def __init__(self, directory):
        self.version = 1
        self.table = ItemTable()
        self.append(IDS[:8])
        self.journal = Journal(directory / "candidates.sqlite")
        self.book = self.read()

    def read(self):
        return CampaignBook(self.journal, self.table, pool_version=self.version, limits=LIMITS)

    def append(self, ids):
        return self.table.append(list(ids), np.zeros(len(ids), np.uint64), np.ones(len(ids), np.float32))

    def do(self, step, ids):
        if step == "rebuild":
            live = self.table.live_rows()
            new_rows = np.full(self.table.rows, -1, np.int64)
            other = ItemTable()
            new_rows[live] = other.extend_from(self.table, live)
            self.book.renumber(new_rows)
            self.table = other
        elif step in ("upsert", "delete"):
            self.change_items(ids if step == "upsert" else [], ids if step == "delete" else [])
        else:
            self.expand(
                ids, grow_by=0 if step == "label" else 3, replaces=step == "replace all", cap=2 * (step == "cap")
            )

    def change_items(self, upserted, deleted):
        old_rows, lost = self.table.find(upserted), Named(ids=deleted, rows=self.table.find(deleted))
        lost = lost.where(lost.rows >= 0)
        following = self.book.follow(
            self.table,
            pool_version=self.version + 1,
            upserted=Named(ids=upserted, rows=old_rows),
            new_rows=np.arange(self.table.rows, self.table.rows + len(upserted)),
            lost=lost,
        )
        self.version += 1
        self.table.retire(np.concatenate([old_rows[old_rows >= 0], lost.rows]))
        self.append(upserted)
        self.book.apply(following)

    def expand(self, ids, *, grow_by, replaces, cap):
        here = [item_id for item_id in ids if self.table.find([item_id])[0] >= 0]
        self.book.expand(
            "c",
            self.table,
            Line(self.table),
            policy=NextOnTheLine(replaces=replaces),
            options=PolicyOptions(k=grow_by, max_candidates=cap),
            labels=Labels(ids=ids, expand_from=here if grow_by else []),
            held_version=0,
            pool_version=self.version,
        )

    def seen(self, book):
        """Return all that callers can see of the campaign, by ids."""
        if "c" not in book.sizes():
            return None
        pool = book._pools["c"]
        steps = [pool.since(held, self.table.find) for held in range(pool.version + 1)]
        return (
            pool.version,
            pool.entered_count,
            pool.labelled_count,
            self.table.ids_at(pool.members()),
            set(self.table.ids_at(pool.labelled())),
            [(one.base_version, self.table.ids_at(one.added), set(one.removed)) for one in steps],
        )


@settings(max_examples=150, deadline=None)
@given(STEPS)
@example([("expand", ["a"]), ("upsert", ["b"]), ("delete", ["b"])])
def test_the_journal_brings_back_the_same_candidate_pool(steps):
    directory = Path(tempfile.mkdtemp())
    lived = Lived(directory)
    try:
        for step, ids in steps:
            lived.do(step, ids)
            assert lived.seen(lived.read()) == lived.seen(lived.book)
    finally:
        lived.journal.close()
        shutil.rmtree(directory)
