import numpy as np
import pytest

from index_server.graph.reachability import reachable_share

LIMITS = {"max_searches": 10**6, "sample": 200, "max_backward": 30, "seed": 0}


def rings(*sizes):
    """Islands: in each, an item's neighbours are the two before and the two after it."""
    tables, first = [], 0
    for size in sizes:
        around = (np.arange(size)[:, None] + [-2, -1, 1, 2]) % size
        tables.append(around + first)
        first += size
    return np.concatenate(tables)


def share_of(table, seeds, **limits):
    live = np.arange(len(table))
    return reachable_share(lambda rows: table[rows], live=live, seeds=np.array(seeds, np.int64), **(LIMITS | limits))


def test_islands_without_a_seed_are_not_reached():
    got = share_of(rings(100, 50, 50), [3, 120])
    assert (got.share, got.standard_error, got.exact) == (0.75, 0, True)


def test_ways_lead_in_one_direction():
    table = np.array([[1, -1], [2, -1], [1, -1], [0, 1]])
    assert share_of(table, [0]).share == 0.75
    assert share_of(table, [3]).share == 1
    assert share_of(table, [2]).share == 0.5


def test_without_seeds_nothing_is_reached_and_without_items_everything():
    assert share_of(rings(10), []).share == 0
    assert share_of(np.empty((0, 4), np.int64), []).share == 1


def test_a_search_that_ends_within_its_budget_is_exact():
    assert share_of(rings(20, 20), [0], max_searches=20).exact


@pytest.mark.parametrize("seed", range(5))
def test_small_islands_are_found_by_a_sample_within_its_error(seed):
    got = share_of(rings(1000, *[10] * 50), [0], max_searches=200, seed=seed)
    assert not got.exact
    assert 0 < got.standard_error < 0.04
    assert abs(got.share - 1000 / 1500) < 4 * got.standard_error


def test_an_untouched_island_beyond_the_backward_limit_is_taken_for_reachable_and_told_so():
    table = rings(1000, 500)
    got = share_of(table, [0], max_searches=200)
    assert got.share == pytest.approx(1)
    assert got.undecided_share >= 0.3
    found_out = share_of(table, [0], max_searches=200, max_backward=2000)
    assert found_out.undecided_share == 0
    assert abs(found_out.share - 2 / 3) < 4 * found_out.standard_error


def test_a_sample_of_all_the_rest_has_no_error_and_only_proofs():
    got = share_of(rings(100, 50), [0], max_searches=10, sample=1000, max_backward=1000)
    assert got.share == pytest.approx(2 / 3)
    assert got.standard_error == 0
    assert not got.exact


def test_the_same_seed_draws_the_same_sample():
    table = rings(1000, *[10] * 50)
    assert share_of(table, [0], max_searches=100) == share_of(table, [0], max_searches=100)
