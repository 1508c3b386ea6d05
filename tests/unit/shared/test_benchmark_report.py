"""The benchmarks' own arithmetic: statistics, targets, reports and the tables made of them."""

import io
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import draws, gaussian_mixture, item_ids, random_projection, tiled, to_unit
from benchmarks.gpu.bound import Bound
from benchmarks.machine import command_of
from benchmarks.peers.port import new_ids, without
from benchmarks.render import NOT_RUN, rendered
from benchmarks.report import Figure, Report, at_least, at_most, shown
from benchmarks.runner import chosen, results_path, run_figures
from benchmarks.statistics import median, quantile, recall, seconds, side_by_side


def report(*figures: Figure) -> Report:
    rows = [row for figure in figures for row in figure.rows]
    return Report(command="python -m benchmarks.x", commit="abc+", machine="2 cores", rows=rows)


def test_a_median_of_an_even_number_is_between_the_two_in_the_middle() -> None:
    assert median([9, 1, 3, 2]) == 2.5
    assert median([9, 1, 3]) == 3
    with pytest.raises(ValueError, match="no values"):
        median([])


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 100), (0.99, 198), (1, 200)])
def test_a_quantile_is_the_least_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert quantile(list(range(200, 0, -1)), share) == expected


def test_the_p99_of_a_few_values_is_the_largest() -> None:
    assert quantile([3, 1, 2], 0.99) == 3
    with pytest.raises(ValueError, match="share"):
        quantile([1], 1.5)


def test_things_side_by_side_take_turns_and_warm_ups_are_not_counted() -> None:
    calls: list[tuple[str, int]] = []
    ticks = count()
    times = side_by_side(
        {"a": lambda i: calls.append(("a", i)), "b": lambda i: calls.append(("b", i))},
        repetitions=2,
        clock=lambda: float(next(ticks)),
    )
    assert calls == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_seconds_are_those_between_before_and_after() -> None:
    ticks = iter([10.0, 12.5])
    assert seconds(lambda: None, clock=lambda: next(ticks)) == 2.5


def test_recall_is_the_share_of_what_was_wanted() -> None:
    assert recall({"a", "b", "x"}, {"a", "b", "c", "d"}) == 0.5
    assert recall(set(), set()) == 1.0


def test_a_target_is_held_against_the_value_and_a_word_meets_none() -> None:
    figure = Figure("f")
    figure.add("fast", 0.08, "s", at_most(0.08))
    figure.add("slow", 0.0801, "s", at_most(0.08))
    figure.add("ratio", 24.9, "×", at_least(25))
    figure.skip("titles", "no file")
    assert [row.met for row in figure.rows] == [True, False, False, None]
    assert [row.target for row in figure.rows] == ["≤ 0.08", "≤ 0.08", "≥ 25", ""]
    assert figure.rows[3].value == "not measured: no file"


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    figure = Figure("f")
    figure.add("what", 1.25, "s", at_most(2))
    written = report(figure)
    written.write(tmp_path / "results" / "x.json")
    text = (tmp_path / "results" / "x.json").read_text()
    assert Report.from_json(text) == written
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["x.json"]


def test_numbers_are_shown_with_four_digits_and_words_as_they_are() -> None:
    assert [shown(value) for value in (0.0, 0.04567, 3.0, 1234.6, 1_000_000, 0.00001, "ivf_flat")] == [
        *("0", "0.04567", "3", "1,235", "1,000,000", "1.00e-05", "ivf_flat")
    ]


def test_a_page_gets_each_table_between_its_markers_and_again_without_change() -> None:
    figure = Figure("expand")
    figure.add("engine", "ivf|flat")
    figure.add("seconds", 0.05, "s", at_most(0.08))
    page = "before\n<!-- results: x -->\nold\n<!-- end -->\nbetween\n<!-- results: y -->\n<!-- end -->\nafter\n"
    texts = {"x": report(figure).to_json()}
    once = rendered(page, texts.get)
    assert "| seconds | 0.05 s | ≤ 0.08 | yes |" in once
    assert "ivf∣flat" in once
    assert "old" not in once
    assert once.count(NOT_RUN) == 1
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert rendered(once, texts.get) == once


def test_a_figure_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    def broken(_: None, figure: Figure) -> None:
        figure.add("before", 1)
        raise OSError("the disk\nis full")

    def whole(_: None, figure: Figure) -> None:
        figure.add("after", 2)

    kept, out = report(), io.StringIO()
    failed = run_figures({"broken": broken, "whole": whole}, None, report=kept, path=tmp_path / "x.json", out=out)
    assert failed == 1
    assert [(row.what, row.value) for row in kept.rows] == [
        *(("broken: before", 1), ("broken: failed", "the disk"), ("whole: after", 2))
    ]
    assert Report.from_json((tmp_path / "x.json").read_text()) == kept


def test_a_part_of_a_run_does_not_take_the_place_of_a_whole_one() -> None:
    names = {
        results_path("index", partial=partial, quick=quick).name for partial in (False, True) for quick in (False, True)
    }
    assert names == {"index.json", "index.quick.json", "index.part.json"}


def test_an_unknown_figure_is_named() -> None:
    assert chosen("b,a", {"a": 1, "b": 2}) == ["b", "a"]
    assert chosen("", {"a": 1, "b": 2}) == ["a", "b"]
    with pytest.raises(SystemExit, match="'c' is not one of a, b"):
        chosen("c", {"a": 1, "b": 2})


def test_a_command_names_files_without_their_folders() -> None:
    assert command_of("m", ["--titles", "/home/me/t.jsonl.gz", "--quick"]) == "python -m m --titles t.jsonl.gz --quick"


def test_a_mixture_is_the_same_for_a_seed_and_as_dense_whatever_its_size() -> None:
    small, large = gaussian_mixture(2_000, 64), gaussian_mixture(70_000, 64)
    assert np.array_equal(large, gaussian_mixture(70_000, 64))
    assert np.allclose(np.linalg.norm(large, axis=1), 1, atol=1e-5)
    # Two items of a cluster have a cosine similarity of 0.5 in the mean, of two clusters 0.
    for vectors, low, high in ((small, 600, 1400), (large, 600, 1400)):
        assert low < np.count_nonzero(vectors @ vectors[0] > 0.33) < high


def test_a_tiled_set_begins_as_it_is_and_repeats_itself_nearly() -> None:
    base = to_unit(np.random.default_rng(0).standard_normal((50, 256), np.float32))
    vectors = tiled(base, 120, noise=0.3)
    assert np.array_equal(vectors[:50], base)
    likeness = (vectors[50:100] * base).sum(axis=1)
    assert 0.93 < likeness.min() <= likeness.max() < 0.98


def test_a_projection_to_all_dimensions_keeps_every_angle() -> None:
    vectors = to_unit(np.random.default_rng(1).standard_normal((20, 16), np.float32))
    turned = random_projection(vectors, 16)
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)
    assert random_projection(vectors, 4).shape == (20, 4)


def test_draws_have_no_row_in_common_while_there_are_enough() -> None:
    rows = draws(100, 10, 10)
    assert sorted(row for draw in rows for row in draw) == list(range(100))
    assert [len(draw) for draw in draws(15, 10, 3)] == [10, 10, 10]
    assert len(set(item_ids(5000))) == 5000


def test_new_ids_are_those_not_known_each_once() -> None:
    assert new_ids([["a", "b"], ["b", "c"]], ["a"]) == ["b", "c"]
    assert without(["a", "b", "c", "d"], ["b"], 2) == ["a", "c"]


def test_the_bound_is_reading_for_one_query_and_multiplying_for_many() -> None:
    bound = Bound(bandwidth=1e12, matrix_rate=1e14)
    one = bound.seconds(queries=1, items=10**6, dimension=500, item_bytes=2)
    many = bound.seconds(queries=1000, items=10**6, dimension=500, item_bytes=2)
    assert (one[1], many[1]) == ("memory", "matrix")
    assert one[0] == pytest.approx(1e-3)
    assert many[0] == pytest.approx(1e-2)
