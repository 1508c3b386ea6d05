import numpy as np
import pytest

from index_server.candidates.state import CandidatePool, Change, Named, Standing

IDS = "abcdefghijklmnopqrstuvwxyz"
"""The item at row 0 is a, at row 1 b …"""


def find(ids):
    return np.array([IDS.find(item_id) for item_id in ids], np.int64)


def named(ids):
    return Named(ids=list(ids), rows=find(ids))


def names(rows):
    return "".join(IDS[row] for row in rows.tolist())


def change(pool, added="", removed="", labelled="", **more):
    rows = find(added)
    return Change(
        version=pool.version + 1,
        pool_version=1,
        added=rows,
        sources=np.full(len(rows), -1),
        scores=np.full(len(rows), np.nan, np.float32),
        removed=named(removed),
        labelled=named(labelled),
        **more,
    )


def pool_of(*changes, first_version=0):
    pool = CandidatePool(policy="seals", first_version=first_version)
    for added, removed, labelled in changes:
        pool.apply(change(pool, added, removed, labelled))
    return pool


def since(pool, held):
    difference = pool.since(held, find)
    return difference.base_version, names(difference.added), "".join(difference.removed)


def test_the_difference_holds_only_what_changed_since():
    pool = pool_of(("ab", "", "x"), ("c", "a", "a"))
    assert since(pool, 1) == (1, "c", "a")
    assert since(pool, 2) == (2, "", "")


def test_a_caller_who_holds_nothing_or_an_unknown_version_gets_everything():
    pool = pool_of(("ab", "", ""), ("c", "a", ""))
    for held in (0, 3, 99):
        assert since(pool, held) == (0, "bc", "")


def test_versions_of_an_earlier_candidate_pool_are_unknown():
    pool = pool_of(("a", "", ""), first_version=7)
    assert pool.version == 8
    assert since(pool, 7)[0] == 0
    assert since(pool, 8)[0] == 8


def test_what_came_and_went_since_is_in_neither_list():
    pool = pool_of(("a", "", ""), ("b", "", ""), ("", "b", "b"))
    assert since(pool, 1) == (1, "", "")


def test_an_item_that_left_came_back_and_left_again_is_removed_for_a_caller_who_held_it():
    pool = pool_of(("a", "", ""), ("", "a", ""), ("a", "", ""), ("", "a", ""))
    assert since(pool, 1) == (1, "", "a")


def test_an_item_that_left_and_came_back_comes_again_and_is_not_removed():
    pool = pool_of(("ab", "", ""), ("", "a", ""), ("a", "", ""))
    assert since(pool, 1) == (1, "a", "")
    assert names(pool.members()) == "ba"


def test_a_replaced_candidate_comes_again_and_stays_one():
    pool = pool_of(("ab", "", ""))
    follow = pool.follow(pool_version=2, replaced=named("az"), deleted=named("y"))
    assert follow is not None
    pool.apply(follow)
    assert since(pool, 1) == (1, "a", "")
    assert names(pool.members()) == "ba"
    pool.replace(find("a"), find("q"))
    assert names(pool.members()) == "bq"
    assert len(pool) == 2


def test_a_change_of_items_that_are_no_candidates_is_no_change():
    pool = pool_of(("a", "", "x"))
    assert pool.follow(pool_version=2, replaced=named("q"), deleted=named("x")) is None


def test_a_labelled_item_stays_labelled_and_expanded_while_the_pool_does_not_have_it():
    pool = pool_of(("a", "", ""))
    pool.apply(change(pool, labelled="xy", expanded=named("x"), classes=[("x", 23, (1, 2))]))
    pool.lose(named("x"))
    assert names(pool.labelled()) == "y"
    assert pool.labelled_count == 2
    gone = Named(ids=["x", "y"], rows=np.array([-1, 24]))
    assert pool.is_labelled(gone).tolist() == [True, True]
    assert pool.is_expanded(gone).tolist() == [True, False]
    assert pool.classes_of("x", -1) == (1, 2)
    pool.regain(Named(ids=["x"], rows=find("m")))
    assert names(pool.labelled()) == "ym"
    assert pool.is_expanded(named("m")).tolist() == [True]
    assert pool.classes() == [None, (1, 2)]


def test_a_deleted_candidate_that_is_inserted_anew_is_none():
    pool = pool_of(("ab", "", ""))
    follow = pool.follow(pool_version=2, replaced=named(""), deleted=named("a"))
    assert follow is not None
    pool.apply(follow)
    pool.lose(named("a"))
    pool.regain(Named(ids=["a"], rows=find("q")))
    assert names(pool.members()) == "b"
    assert pool.standing(find("aq")).tolist() == [Standing.OUTSIDE] * 2
    assert since(pool, 1) == (1, "", "a")


def test_other_rows_change_nothing_else():
    pool = pool_of(("abc", "", "x"), ("d", "a", ""))
    pool.renumber(np.arange(25, -1, -1))
    assert names(pool.members()) == "yxw"
    assert names(pool.labelled()) == "c"
    assert pool.since(1, lambda ids: 25 - find(ids)).removed == ["a"]


def test_it_tells_why_an_item_is_a_candidate_and_since_when():
    pool = pool_of(("a", "", "x"))
    pool.apply(
        Change(
            version=2,
            pool_version=1,
            added=find("b"),
            sources=find("x"),
            scores=np.array([0.5], np.float32),
            removed=named("a"),
        )
    )
    reasons = [pool.reason(row) for row in find("abxz").tolist()]
    assert [r.standing.name for r in reasons] == ["LEFT", "CANDIDATE", "LABELLED", "OUTSIDE"]
    assert (names(np.array([reasons[1].source])), reasons[1].score, reasons[1].version) == ("x", 0.5, 2)
    pool.lose(named("x"))
    assert pool.reason(1).source == -1


def test_an_item_that_was_replaced_and_is_gone_when_changes_are_read_came_in_when_it_first_did():
    pool = CandidatePool(policy="seals", first_version=0)
    pool.apply(change(pool, "b", ghosts=["gone"]))
    pool.apply(change(pool, ghosts=["gone"]))
    lost = Named(ids=["gone"], rows=np.array([-1]))
    pool.apply(change(pool, deleted=lost))
    assert since(pool, 1) == (1, "", "gone")
    assert pool.entered_count == 2


def test_a_change_that_is_not_the_next_one_is_refused():
    pool = pool_of(("a", "", ""))
    with pytest.raises(ValueError, match="does not follow"):
        pool.apply(Change(version=3, pool_version=1))
