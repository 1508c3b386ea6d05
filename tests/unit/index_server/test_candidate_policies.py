"""What each candidate policy proposes, and which options it takes."""

from collections import Counter

import numpy as np
import pytest

from index_server.candidates.policies import DEFAULT_POLICY, POLICIES, resolve
from index_server.candidates.policies.anchoral import AnchoralPolicy
from index_server.candidates.policies.full import FullPolicy
from index_server.candidates.policies.kmeans import seed_positions
from index_server.candidates.policies.random_subset import RandomSubsetPolicy
from index_server.candidates.policies.seals import SealsPolicy
from index_server.ports import Growth, PolicyOptions
from index_server.spec import Metric
from sealpool.errors import InvalidArgument
from tests.support.neighbourhoods import BruteForceNeighbourhood

LINE = np.array([[0], [1], [2.5], [4.5], [7], [10]], np.float32)


def growth(*, sources=(), labelled=(), labels=None, draw=1, **options):
    return Growth(
        sources=np.array(sources, np.int64),
        labelled=np.array(labelled, np.int64),
        labels=[[]] * len(labelled) if labels is None else labels,
        draw=draw,
        options=PolicyOptions(**options),
    )


def on_a_line(**options):
    return BruteForceNeighbourhood(Metric.L2, LINE, **options)


class Million:
    """A pool of a million items in which nobody searches."""

    metric = Metric.L2

    def live_rows(self):
        return np.arange(1_000_000)


class TestSeals:
    def test_brings_the_neighbours_of_the_first_source_nearest_first_and_then_those_of_the_second(self):
        proposal = SealsPolicy().propose(on_a_line(), growth(sources=[3, 0], k=2))
        assert proposal.rows.tolist() == [2, 4, 1, 2]
        assert proposal.sources.tolist() == [3, 3, 0, 0]
        assert proposal.scores.tolist() == [2, 2.5, 1, 2.5]
        assert not proposal.replaces

    def test_does_not_make_up_for_labelled_neighbours(self):
        assert SealsPolicy().propose(on_a_line(), growth(sources=[0], labelled=[0, 1], k=1)).rows.tolist() == [1]

    def test_drops_the_padding_where_a_pool_is_small(self):
        proposal = SealsPolicy().propose(on_a_line(live=[0, 1, 5]), growth(sources=[0, 5], k=10))
        assert proposal.rows.tolist() == [1, 5, 1, 0]
        assert proposal.sources.tolist() == [0, 0, 5, 5]
        assert np.isfinite(proposal.scores).all()

    def test_proposes_nothing_and_searches_for_nothing_without_a_source(self):
        neighbourhood = on_a_line()
        proposal = SealsPolicy().propose(neighbourhood, growth(labelled=[1], k=2))
        assert (len(proposal.rows), len(proposal.sources), len(proposal.scores)) == (0, 0, 0)
        assert neighbourhood.searches == []

    def test_searches_for_all_sources_at_once(self):
        neighbourhood = on_a_line()
        SealsPolicy().propose(neighbourhood, growth(sources=[5, 1, 3], k=2))
        assert neighbourhood.searches == [([5, 1, 3], 2)]

    @pytest.mark.parametrize(("block_neighbors", "searches"), [(6, [[5, 1, 3], [0]]), (1, [[5], [1], [3], [0]])])
    def test_proposes_the_same_in_blocks(self, block_neighbors, searches):
        neighbourhood, grown = on_a_line(), growth(sources=[5, 1, 3, 0], k=2)
        blocks = SealsPolicy(block_neighbors=block_neighbors).propose(neighbourhood, grown)
        assert [rows for rows, _ in neighbourhood.searches] == searches
        whole = SealsPolicy().propose(neighbourhood, grown)
        assert blocks.rows.tolist() == whole.rows.tolist()
        assert blocks.sources.tolist() == whole.sources.tolist()
        assert blocks.scores.tolist() == whole.scores.tolist()


class TestFull:
    def test_proposes_the_whole_pool_in_its_order_without_sources_and_scores(self):
        proposal = FullPolicy().propose(on_a_line(live=[0, 2, 4]), growth(labelled=[2]))
        assert proposal.rows.tolist() == [0, 2, 4]
        assert proposal.sources.tolist() == [-1, -1, -1]
        assert np.isnan(proposal.scores).all()
        assert not proposal.replaces


class TestRandomSubset:
    def test_draws_that_many_unlabelled_items_of_the_pool_in_place_of_those_before(self):
        neighbourhood = on_a_line(live=[0, 2, 3, 4, 5])
        draws = [
            RandomSubsetPolicy().propose(neighbourhood, growth(labelled=[0, 3], subpool_size=2, draw=draw))
            for draw in range(30)
        ]
        assert {tuple(draw.rows.tolist()) for draw in draws} == {(2, 4), (2, 5), (4, 5)}
        assert all(draw.replaces for draw in draws)
        assert draws[0].sources.tolist() == [-1, -1]
        assert np.isnan(draws[0].scores).all()

    def test_takes_all_where_fewer_are_unlabelled(self):
        proposal = RandomSubsetPolicy().propose(on_a_line(), growth(labelled=[0, 3], subpool_size=100))
        assert proposal.rows.tolist() == [1, 2, 4, 5]

    def test_draws_the_same_for_the_same_seed_and_version_and_others_otherwise(self):
        def draw(**changed):
            return RandomSubsetPolicy().propose(Million(), growth(subpool_size=50, **changed)).rows.tolist()

        assert draw(seed=3, draw=4) == draw(seed=3, draw=4)
        assert len({tuple(draw(seed=seed, draw=number)) for seed in (0, 1, 2**64 - 1) for number in (1, 2)}) == 6

    def test_draws_each_item_equally_often(self):
        neighbourhood = on_a_line()
        drawn = Counter()
        for draw in range(2000):
            drawn.update(RandomSubsetPolicy().propose(neighbourhood, growth(subpool_size=3, draw=draw)).rows.tolist())
        # 1,000 each are expected, with a standard deviation of 22.
        assert all(abs(drawn[row] - 1000) < 100 for row in range(6))

    def test_leaves_out_labelled_items_of_a_large_pool(self):
        labelled = np.arange(0, 1_000_000, 2)
        proposal = RandomSubsetPolicy().propose(Million(), growth(labelled=labelled, subpool_size=10_000))
        assert (proposal.rows % 2 == 1).all()
        assert len(np.unique(proposal.rows)) == 10_000
        assert (np.diff(proposal.rows) > 0).all()


class TestAnchoral:
    def test_averages_over_the_anchors_that_retrieved_an_item(self):
        # 0 retrieves 1 and 2 (at 2.5), 3 retrieves 2 and 4: only 2 has both.
        grown = growth(labelled=[0, 3], labels=[[0], [1]], k=2, anchors=5, subpool_size=9)
        proposal = AnchoralPolicy().propose(on_a_line(), grown)
        assert proposal.rows.tolist() == [1, 2, 4]
        assert proposal.scores.tolist() == [-1, -2.25, -2.5]
        assert proposal.sources.tolist() == [0, -1, 3]
        assert proposal.replaces

    def test_keeps_the_best_of_them(self):
        grown = growth(labelled=[0, 3], labels=[[0], [1]], k=2, anchors=5, subpool_size=1)
        assert AnchoralPolicy().propose(on_a_line(), grown).rows.tolist() == [1]

    def test_finds_k_unlabelled_items_behind_any_number_of_labelled_ones(self):
        crowd = np.concatenate([np.zeros((1, 1)), np.linspace(0.1, 0.2, 40)[:, None], [[1], [2], [3]]])
        neighbourhood = BruteForceNeighbourhood(Metric.L2, crowd)
        grown = growth(labelled=range(41), labels=[[0]] + [[1]] * 40, k=2, anchors=1, subpool_size=9)
        assert AnchoralPolicy().propose(neighbourhood, grown).rows.tolist() == [41, 42]
        assert max(k for _, k in neighbourhood.searches) <= 2 + 41

    def test_gives_what_there_is_where_fewer_than_k_are_unlabelled(self):
        grown = growth(labelled=[0, 1, 2, 3], labels=[[0]] * 4, k=50, anchors=10, subpool_size=9)
        assert sorted(AnchoralPolicy().propose(on_a_line(), grown).rows.tolist()) == [4, 5]

    def test_proposes_nothing_where_nothing_is_labelled_or_nothing_is_left(self):
        nothing = AnchoralPolicy().propose(on_a_line(), growth(k=2, anchors=2, subpool_size=9))
        assert (len(nothing.rows), nothing.replaces) == (0, True)
        everything = growth(labelled=range(6), labels=[[0]] * 6, k=2, anchors=2, subpool_size=9)
        assert len(AnchoralPolicy().propose(on_a_line(), everything).rows) == 0

    def test_counts_an_item_of_two_classes_as_one_anchor(self):
        grown = growth(labelled=[0], labels=[[0, 7]], k=1, anchors=1, subpool_size=9)
        neighbourhood = on_a_line()
        assert AnchoralPolicy().propose(neighbourhood, grown).sources.tolist() == [0]
        assert neighbourhood.searches == [([0], 1)]

    def test_chooses_anchors_of_each_class_anew_with_each_version(self):
        def anchors(draw):
            neighbourhood = BruteForceNeighbourhood(Metric.L2, np.arange(40)[:, None])
            labels = [[0]] * 15 + [[1]] * 15
            grown = growth(labelled=range(30), labels=labels, draw=draw, k=1, anchors=2, subpool_size=9, seed=1)
            AnchoralPolicy().propose(neighbourhood, grown)
            return neighbourhood.searches[0][0]

        assert anchors(1) == anchors(1)
        assert len({tuple(anchors(draw)) for draw in range(5)}) > 1
        assert all([row < 15 for row in anchors(draw)] == [True, True, False, False] for draw in range(5))

    def test_asks_for_the_labels_of_every_labelled_item(self):
        grown = growth(labelled=[0, 1, 2], labels=[[0], None, None], k=2, anchors=2, subpool_size=9)
        with pytest.raises(InvalidArgument, match="2 of 3") as failure:
            AnchoralPolicy().propose(on_a_line(), grown)
        assert failure.value.field == "label_counts"
        with pytest.raises(InvalidArgument, match="1 of 1"):
            AnchoralPolicy().propose(on_a_line(), growth(labelled=[0], labels=[None], k=2, anchors=2, subpool_size=9))

    def test_an_item_of_no_class_at_all_is_no_anchor_and_no_error(self):
        grown = growth(labelled=[0, 1], labels=[[0], []], k=2, anchors=2, subpool_size=9)
        assert set(AnchoralPolicy().propose(on_a_line(), grown).sources.tolist()) == {0}


class TestSeeding:
    def test_draws_the_second_by_its_squared_distance_to_the_first(self):
        vectors = np.array([[0], [1], [2], [4]], np.float32)
        second = Counter()
        for seed in range(4000):
            first, other = seed_positions(vectors, 2, np.random.default_rng(seed)).tolist()
            if first == 0:
                second[other] += 1
        drawn = sum(second.values())
        # About 1,000 draws, so the standard deviation of a share is 0.014 at most.
        assert [second[position] / drawn for position in (1, 2, 3)] == pytest.approx(
            [1 / 21, 4 / 21, 16 / 21], abs=0.06
        )

    def test_measures_from_the_nearest_of_those_drawn(self):
        # Once both ends are drawn, the copies that crowd at each end have distance 0: only the middle is left.
        vectors = np.array([[-1e6]] * 5 + [[1e-6]] + [[1e6]] * 5, np.float32)
        for seed in range(20):
            drawn = seed_positions(vectors, 9, np.random.default_rng(seed))
            assert sorted(vectors[drawn, 0].tolist()) == sorted({*vectors[:, 0].tolist()})

    def test_draws_one_where_all_are_equal_and_none_of_none(self):
        assert len(seed_positions(np.ones((7, 2), np.float32), 3, np.random.default_rng(0))) == 1
        assert len(seed_positions(np.ones((0, 2), np.float32), 3, np.random.default_rng(0))) == 0

    def test_large_and_small_vectors_neither_overflow_nor_vanish(self):
        large = np.array([[3e38], [-3e38], [0]], np.float32)
        assert len(seed_positions(large, 3, np.random.default_rng(0))) == 3
        assert len(seed_positions(large * np.float32(1e-38) * np.float32(1e-6), 3, np.random.default_rng(0))) == 3


class TestRegistry:
    def test_each_policy_is_known_by_its_name(self):
        assert list(POLICIES) == ["seals", "anchoral", "random_subset", "full"]
        assert all(policy.name == name for name, policy in POLICIES.items())
        assert [name for name, policy in POLICIES.items() if policy.needs_labels] == ["anchoral"]

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("seals", PolicyOptions(k=100)),
            ("anchoral", PolicyOptions(k=50, subpool_size=1000, anchors=10)),
            ("random_subset", PolicyOptions(subpool_size=1000)),
            ("full", PolicyOptions()),
        ],
    )
    def test_zeros_become_the_defaults(self, name, options):
        assert resolve(name, 0, 0, 0, 0, 0) == (POLICIES[name], options)

    def test_no_name_is_the_default_policy(self):
        assert resolve("", k=7, max_candidates=9) == (POLICIES[DEFAULT_POLICY], PolicyOptions(k=7, max_candidates=9))

    def test_what_is_told_stands(self):
        told = {"k": 1, "subpool_size": 2, "anchors": 3, "seed": 2**64 - 1}
        assert resolve("anchoral", **told)[1] == PolicyOptions(**told)

    @pytest.mark.parametrize(
        ("name", "option"),
        [
            ("seals", "subpool_size"),
            ("seals", "anchors"),
            ("seals", "seed"),
            ("anchoral", "max_candidates"),
            ("random_subset", "k"),
            ("random_subset", "anchors"),
            ("random_subset", "max_candidates"),
            ("full", "k"),
            ("full", "seed"),
        ],
    )
    def test_an_option_of_another_policy_is_refused(self, name, option):
        with pytest.raises(InvalidArgument, match=f"no option of '{name}'") as failure:
            resolve(name, **{option: 1})
        assert failure.value.field == f"policy.{option}"

    @pytest.mark.parametrize(
        ("option", "value"), [("k", -1), ("anchors", 1001), ("subpool_size", 2**32), ("seed", 2**64), ("seed", -1)]
    )
    def test_an_option_out_of_range_is_refused(self, option, value):
        with pytest.raises(InvalidArgument, match="is not in") as failure:
            resolve("anchoral", **{option: value})
        assert failure.value.field == f"policy.{option}"

    def test_an_unknown_policy_is_refused_with_the_names_there_are(self):
        with pytest.raises(InvalidArgument, match="seals, anchoral, random_subset, full") as failure:
            resolve("magic")
        assert failure.value.field == "policy.name"
