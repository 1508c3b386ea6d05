from index_server.candidates.state import CandidatePool, Change


def pool_of(*changes, first_version=0):
    pool = CandidatePool(policy="seals", first_version=first_version)
    for added, removed, labelled in changes:
        pool.apply(
            Change(
                version=pool.version + 1, pool_version=1, added=added, removed=removed, labelled=labelled, expanded=()
            )
        )
    return pool


def test_the_difference_holds_only_what_changed_since():
    pool = pool_of((["a", "b"], [], ["x"]), (["c"], ["a"], ["a"]))
    assert pool.since(1).added == ["c"]
    assert pool.since(1).removed == ["a"]
    assert pool.since(2).added == pool.since(2).removed == []


def test_a_caller_who_holds_nothing_or_an_unknown_version_gets_everything():
    pool = pool_of((["a", "b"], [], []), (["c"], ["a"], []))
    for held in (0, 3, 99):
        difference = pool.since(held)
        assert (difference.base_version, difference.added, difference.removed) == (0, ["b", "c"], [])


def test_versions_of_an_earlier_candidate_pool_are_unknown():
    pool = pool_of((["a"], [], []), first_version=7)
    assert pool.version == 8
    assert pool.since(7).base_version == 0
    assert pool.since(8).base_version == 8


def test_what_came_and_went_since_is_in_neither_list():
    pool = pool_of((["a"], [], []), (["b"], [], []), ([], ["b"], ["b"]))
    assert pool.since(1).added == pool.since(1).removed == []


def test_an_item_that_left_came_back_and_left_again_is_removed_for_a_caller_who_held_it():
    pool = pool_of((["a"], [], []), ([], ["a"], []), (["a"], [], []), ([], ["a"], []))
    assert pool.since(1).removed == ["a"]


def test_a_replaced_candidate_comes_again_and_stays_one():
    pool = pool_of((["a", "b"], [], []))
    change = pool.follow(pool_version=2, replaced=["a", "z"], deleted=["y"])
    assert change is not None
    pool.apply(change)
    assert pool.since(1).added == ["a"]
    assert list(pool.members) == ["b", "a"]


def test_labelled_items_and_present_candidates_do_not_come_in():
    pool = pool_of((["a"], [], ["x"]))
    change = pool.grow(pool_version=1, newly_labelled=["n"], newly_expanded=[], proposed=["a", "x", "n", "b", "b"])
    assert change is not None
    assert change.added == ["b"]
    assert change.removed == []
    assert change.labelled == ["n"]


def test_nothing_new_is_no_change():
    pool = pool_of((["a"], [], ["x"]))
    assert pool.grow(pool_version=1, newly_labelled=[], newly_expanded=[], proposed=["a", "x"]) is None
    assert pool.follow(pool_version=2, replaced=["q"], deleted=["x"]) is None


def test_an_item_that_was_told_can_be_expanded_later_and_that_is_a_change_though_it_brings_nothing():
    pool = pool_of((["a"], [], ["x"]))
    assert not pool.is_expanded("x")
    change = pool.grow(pool_version=1, newly_labelled=[], newly_expanded=["x"], proposed=["a"])
    assert change is not None
    pool.apply(change)
    assert pool.is_expanded("x")
    assert (pool.version, list(pool.members)) == (2, ["a"])
