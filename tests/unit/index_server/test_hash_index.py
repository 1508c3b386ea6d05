import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index_server.table.hash_index import HashIndex

FEW_HASHES = st.sampled_from([0, 1, 2, 7, 2**31, 2**32 - 1])


def hashes(*values):
    return np.array(values, np.uint32)


def numbers(*values):
    return np.array(values, np.int64)


def find_all(index, wanted):
    """Return the number of each (hash, number) pair if the index has it."""
    asked = [pair[0] for pair in wanted]
    right = np.array([pair[1] for pair in wanted], np.int64)
    return index.find(hashes(*asked), lambda positions, found: right[positions] == found).tolist()


def test_numbers_under_one_hash_are_told_apart_by_the_owner():
    index = HashIndex()
    index.insert(hashes(5, 5, 5), numbers(0, 1, 2))
    assert find_all(index, [(5, 2), (5, 0), (5, 3), (6, 0)]) == [2, 0, -1, -1]


def test_hash_0_and_the_last_number_are_as_good_as_others():
    index = HashIndex()
    index.insert(hashes(0, 1, 2**32 - 1), numbers(0, 2**32 - 2, 2**32 - 2))
    assert find_all(index, [(0, 0), (1, 2**32 - 2), (2**32 - 1, 2**32 - 2), (2**32 - 1, 0)]) == [
        0,
        2**32 - 2,
        2**32 - 2,
        -1,
    ]


def test_a_removed_number_is_not_found_and_those_behind_it_are():
    index = HashIndex()
    index.insert(hashes(1, 1, 1), numbers(0, 1, 2))
    index.remove(hashes(1), numbers(1))
    assert find_all(index, [(1, 0), (1, 1), (1, 2)]) == [0, -1, 2]
    index.remove(hashes(1, 9), numbers(1, 4))
    assert find_all(index, [(1, 2)]) == [2]


def test_a_number_replaced_again_and_again_leaves_no_trail():
    index, looks = HashIndex(), []

    def look(positions, found):
        looks.append(found)
        return found == 4999

    for number in range(5000):
        index.remove(hashes(77), numbers(number - 1))
        index.insert(hashes(77), numbers(number))
    assert index.find(hashes(77), look).tolist() == [4999]
    assert len(looks) == 1
    assert index.nbytes == HashIndex().nbytes


def test_a_number_takes_11_to_16_bytes_however_many_there_are():
    rng, index = np.random.default_rng(0), HashIndex()
    for start in range(0, 100_000, 1000):
        index.insert(rng.integers(0, 2**32, 1000, dtype=np.uint32), np.arange(start, start + 1000))
        if start >= 1000:
            assert 10.6 * (start + 1000) <= index.nbytes <= 16.1 * (start + 1000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(FEW_HASHES, min_size=1, max_size=90)), max_size=12))
def test_it_holds_what_was_put_in_and_not_taken_out(steps):
    index, present, gone = HashIndex(), [], []
    for removing, chosen in steps:
        if removing:
            leaving, present = present[: len(chosen)], present[len(chosen) :]
            if leaving:
                index.remove(hashes(*(pair[0] for pair in leaving)), numbers(*(pair[1] for pair in leaving)))
            gone += leaving
        else:
            first = len(present) + len(gone)
            new = [(one, first + place) for place, one in enumerate(chosen)]
            index.insert(hashes(*chosen), numbers(*(pair[1] for pair in new)))
            present += new
    if present:
        assert find_all(index, present) == [pair[1] for pair in present]
    if gone:
        assert find_all(index, gone) == [-1] * len(gone)
