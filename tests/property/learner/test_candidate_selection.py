"""The candidate cache follows any history of updates; the best k are those of a full sort."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.candidates import Candidates, Slot
from learner.draws import draws_of, keys_of
from learner.selection import best, finalists, round_scores
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2


@dataclass(frozen=True)
class Update:
    added: Items
    removed: list[ItemId]
    base_version: int
    info: common_pb2.CandidatePoolInfo
    pool_direction: NDArray[np.float32] = field(default_factory=lambda: np.zeros(3, np.float32))
    pool_version: int = 1


def items_of(vectors: dict[str, NDArray[np.float32]]) -> Items:
    rows = np.array(list(vectors.values()), np.float32).reshape(len(vectors), 3)
    return Items(ids=[ItemId(i) for i in vectors], vectors=rows)


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.sampled_from([0.0, 1.0, 1e4])
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=80)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_the_cache_holds_what_a_dictionary_would(steps: list, seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected: dict[str, NDArray[np.float32]] = {}
    candidates, version = Candidates(), 0
    mirror: dict[int, NDArray[np.float32]] = {}
    for reset, added, removed, scale in steps:
        version += 1
        if reset:
            expected.clear()
        for number in removed:
            expected.pop(str(number), None)
        new = {str(number): (rng.normal(size=3) * scale).astype(np.float32) for number in added}
        expected |= new
        info = common_pb2.CandidatePoolInfo(version=version)
        candidates.apply(
            Update(
                added=items_of(new),
                removed=[ItemId(str(number)) for number in removed],
                base_version=0 if reset else version - 1 or 1,
                info=info,
            )
        )
        mirror |= {int(slot): candidates.vectors[slot].copy() for slot in candidates.take_changed_slots()}
    assert candidates.version == version
    assert {candidates.id_at(Slot(slot)) for slot in range(len(candidates))} == set(expected)
    for item_id, vector in expected.items():
        (slot,) = candidates.slots_of([ItemId(item_id)])
        np.testing.assert_array_equal(candidates.vectors[slot], vector)
        np.testing.assert_array_equal(mirror[int(slot)], vector)
        assert candidates.keys[slot] == keys_of([ItemId(item_id)])[0]
    lengths = {i: float(np.linalg.norm(v)) for i, v in expected.items()}
    units = [v / lengths[i] if lengths[i] else v for i, v in expected.items()]
    if expected:
        np.testing.assert_allclose(candidates.direction, np.mean(units, axis=0), atol=1e-5)


@settings(deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=60),
    count=st.integers(0, 70),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_best_are_those_of_a_full_sort_in_any_order(scores: list[float], count: int, seed: int) -> None:
    ids = [ItemId(f"item-{number}") for number in range(len(scores))]
    array = np.array(scores)
    draws = draws_of(keys_of(ids), seed)
    expected = sorted(ids, key=lambda i: (-scores[ids.index(i)], int(draws[ids.index(i)])))[:count]
    assert [ids[place] for place in best(array, draws, count)] == expected
    shuffled = np.random.default_rng(0).permutation(len(ids))
    again = best(array[shuffled], draws[shuffled], count)
    assert [ids[shuffled[place]] for place in again] == expected


@settings(deadline=None)
@given(
    scores=st.lists(st.floats(0, 2), min_size=1, max_size=60),
    twins=st.integers(0, 30),
    barred=st.sets(st.integers(0, 59)),
    count=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
def test_finalists_hold_every_one_that_noise_could_have_put_out_of_the_best(
    scores: list[float], twins: int, barred: set[int], count: int, seed: int
) -> None:
    true = np.array(scores + scores[:1] * twins)
    rng = np.random.default_rng(seed)
    seen = true * (1 + rng.uniform(-4e-6, 4e-6, len(true))) + rng.uniform(-3e-7, 3e-7, len(true))
    places = [place for place in barred if place < len(true)]
    true[places] = seen[places] = -np.inf
    few = finalists(seen, count)
    assert np.isfinite(true[few]).all()
    if count:
        threshold = np.sort(true)[::-1][min(count, len(true)) - 1]
        assert set(np.flatnonzero((true >= threshold) & np.isfinite(true))) <= set(few)


def test_rounding_lifts_the_last_bits_away() -> None:
    noisy = np.array([0.5, 0.5 - 1e-8, 0.5 + 1e-8, 1.0, 0.99999994, 0.0])
    np.testing.assert_array_equal(round_scores(noisy), [0.5, 0.5, 0.5, 1.0, 1.0, 0.0])


def test_draws_are_uniform_and_differ_by_seed() -> None:
    keys = keys_of([ItemId(str(number)) for number in range(20_000)])
    shares = [draws_of(keys, seed) / 2.0**64 for seed in (0, 1)]
    for share in shares:
        assert abs(share.mean() - 0.5) < 0.01
        assert abs(share.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(shares[0], shares[1])[0, 1]) < 0.03
