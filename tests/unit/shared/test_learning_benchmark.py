"""The learning benchmark on texts made up: what a trial holds, how a campaign goes, and what the table says."""

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.campaign import Campaigns
from benchmarks.learning.figures import Bench, add_rows, mean_and_error, measure_study
from benchmarks.learning.studies import STUDIES, Study, accuracy, plain, positives_found
from benchmarks.learning.texts import LabelledTexts, read_texts
from benchmarks.report import Figure
from benchmarks.titles import NoTitlesError
from learner.problem import Problem, Task
from learner.strategies import make_strategy


def labelled_texts(*, items: int = 120, classes: int = 4) -> LabelledTexts:
    """Return texts whose vectors lie near one direction a class; one class a text."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, items)
    vectors = (np.eye(8)[targets] + 0.2 * rng.standard_normal((items, 8))).astype(np.float32)
    return LabelledTexts(
        name="made_up",
        problem=Problem(task=Task.MULTICLASS, classes=tuple("abcdefgh"[:classes])),
        texts=tuple(f"text {row}" for row in range(items)),
        vectors=vectors,
        targets=targets,
        test=np.arange(items) % 4 == 0,
    )


def small_study(*names: str, measures: str = "accuracy, %") -> Study:
    return Study(
        multilabel=False,
        arms=plain(*names),
        batch=5,
        rounds=2,
        shown=(1, 2),
        measures={measures: accuracy},
        draw=lambda texts, seed: [texts.draw(seed, candidates=60, held_out=20)],
        about="made up",
    )


def test_a_trial_is_a_function_of_its_seed_and_keeps_held_out_texts_apart() -> None:
    texts = labelled_texts()
    trial, again, other = (texts.draw(seed, candidates=60, held_out=20, start=7) for seed in (1, 1, 2))
    assert trial.texts == again.texts
    assert trial.texts != other.texts
    assert len(trial.texts) == 60
    held_out = {texts.texts[row] for row in np.flatnonzero(texts.test)}
    assert not held_out & set(trial.texts)
    assert set(trial.test_texts) <= held_out
    np.testing.assert_array_equal(trial.start, np.arange(7))


def test_a_rare_trial_begins_with_the_positives_and_negatives_asked_for() -> None:
    trial = labelled_texts().draw_rare(0, "c", candidates=80, held_out=20, positives=3, negatives=9)
    assert trial.problem == Problem(task=Task.BINARY, classes=("rest", "c"))
    assert np.bincount(trial.targets[trial.start]).tolist() == [9, 3]


def test_only_some_classes_are_numbered_anew() -> None:
    texts = labelled_texts()
    some = texts.only(("b", "d"))
    np.testing.assert_array_equal(some.has("d"), texts.has("d")[texts.has("b") | texts.has("d")])
    assert set(some.targets.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["random", "margin", "typiclust", "auto"])
def test_a_campaign_without_labels_picks_new_items_each_round_and_learns(name: str) -> None:
    trial = labelled_texts().draw(0, candidates=60, held_out=30)
    played = Campaigns(trial).play(plain(name)[0], batch=12, rounds=3)
    assert [one.labels for one in played] == [0, 12, 24, 36]
    assert [sum(one.counts) for one in played] == [0, 12, 24, 36]
    assert played[0].quality is None
    assert played[0].picked_by == {"margin": "random", "auto": "typiclust"}.get(name, name)
    assert accuracy(played[0]) == 0
    assert accuracy(played[-1]) > 70


@pytest.mark.parametrize("name", ["random", "typiclust"])
def test_what_is_labelled_is_never_picked_again(name: str) -> None:
    trial = labelled_texts().draw(0, candidates=20, held_out=30)
    played = Campaigns(trial).play(plain(name)[0], batch=12, rounds=2)
    assert [one.labels for one in played] == [0, 12, 20]
    np.testing.assert_array_equal(played[-1].counts, np.bincount(trial.targets))


def test_a_table_gives_means_errors_and_what_auto_chose() -> None:
    figure = Figure("made_up")
    bench = Bench(data=[labelled_texts()], seeds=2, jobs=1)
    measure_study(small_study("random", "k_center", "auto"), bench, figure)
    said = {row.subject: str(row.value) for row in figure.rows}
    assert said["labels"] == "5 · 10"
    assert "over random" not in said["accuracy, %, random"]
    assert said["accuracy, %, k_center"].count("±") == 3
    assert said["chosen by auto, batch by batch"].startswith("2× typiclust · ")


def test_what_is_over_random_is_taken_trial_by_trial() -> None:
    texts, study, figure = labelled_texts(), small_study("random", "k_center"), Figure("made_up")
    trials = [texts.draw(seed, candidates=60, held_out=20) for seed in range(2)]
    same = [[Campaigns(trial).play(study.arms[0], batch=5, rounds=2)] * 2 for trial in trials]
    add_rows(figure, study, "made_up", trials, same)
    assert str(figure.rows[-1].value).endswith("over random, mean of all rounds: 0.0 ± 0.0")


def test_a_mean_has_its_standard_error() -> None:
    assert mean_and_error([1.0, 2.0, 3.0]) == "2.0 ± 0.6"
    assert mean_and_error([4.0]) == "4.0"


def test_a_study_without_data_of_its_kind_says_so() -> None:
    figure = Figure("made_up")
    measure_study(
        replace(small_study("random"), multilabel=True), Bench(data=[labelled_texts()], seeds=1, jobs=1), figure
    )
    assert [row.value for row in figure.rows] == ["not measured: no multi-label texts were given"]


def test_every_arm_of_every_study_is_a_strategy_with_a_meaning_for_its_task() -> None:
    for study in STUDIES.values():
        searches = positives_found in study.measures.values()
        task = Task.BINARY if searches else Task.MULTILABEL if study.multilabel else Task.MULTICLASS
        problem = Problem(task=task, classes=("a", "b") if searches else ("a", "b", "c"))
        for arm in study.arms:
            if arm.strategy.name != "auto":
                make_strategy(arm.strategy, problem)


def test_texts_are_read_with_their_kept_vectors_and_leftovers_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"text": f"t{row}", "labels": [label], "split": split}
        for row, (label, split) in enumerate([("b", "train"), ("oos", "train"), ("a", "test"), ("b", "test")])
    ]
    file = tmp_path / "texts.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    monkeypatch.setattr("benchmarks.learning.texts.title_vectors", lambda _file, count, **_: vectors[:count])
    texts = read_texts(file, most=9, cache=tmp_path)
    assert texts.problem.classes == ("a", "b")
    assert texts.texts == ("t0", "t2", "t3")
    np.testing.assert_array_equal(texts.vectors, vectors[[0, 2, 3]])
    np.testing.assert_array_equal(texts.targets, [1, 0, 1])
    assert texts.test.tolist() == [False, True, True]
    for missing, message in (
        (partial(read_texts, file, most=1), "both splits"),
        (partial(read_texts, tmp_path / "x", most=1), "no file x"),
    ):
        with pytest.raises(NoTitlesError, match=message):
            missing(cache=tmp_path)
