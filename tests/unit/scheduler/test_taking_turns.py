"""Lists give their values turn by turn."""

from scheduler.domain.turns import turn_by_turn


def test_each_list_gives_one_value_a_turn() -> None:
    assert turn_by_turn([[1, 2, 3], [4, 5]], 10, taken=()) == [1, 4, 2, 5, 3]


def test_a_value_that_another_list_gave_does_not_cost_a_turn() -> None:
    assert turn_by_turn([[1, 2, 3], [1, 5, 9]], 4, taken=()) == [1, 5, 2, 9]


def test_taken_values_are_passed_over_and_the_count_is_kept() -> None:
    assert turn_by_turn([[1, 2, 3], [4, 5, 6]], 3, taken={1, 4}) == [2, 5, 3]
    assert turn_by_turn([[1], []], 0, taken=()) == []
    assert turn_by_turn([], 3, taken=()) == []
