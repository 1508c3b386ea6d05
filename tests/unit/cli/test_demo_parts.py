"""What the demo makes of a file, and how it chooses its sizes."""

import json

import numpy as np
import pytest

from sealpool.cli.campaign_spec import Task
from sealpool.cli.demo_data import DemoData, Labelled, digits, labelled_text
from sealpool.cli.demo_embed import embed
from sealpool.cli.demo_run import campaign_spec, plan_demo
from sealpool.errors import InvalidArgument


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(count, labels, **more):
    return [{"id": f"t{n}", "text": f"text {n}", "labels": labels(n), **more} for n in range(count)]


def test_digits_hold_out_a_quarter_by_the_seed():
    one, same, other = digits(0), digits(0), digits(1)
    assert (len(one.pool), len(one.held_out)) == (1348, 449)
    assert one.pool.ids == same.pool.ids
    assert one.pool.ids != other.pool.ids
    assert not set(one.pool.ids) & set(one.held_out.ids)
    assert one.pool.vectors.shape == (1348, 64)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (lambda n: "ab"[n % 2], Task.BINARY),
        (lambda n: "abc"[n % 3], Task.MULTICLASS),
        (lambda n: ["a", "b"] if n else [], Task.MULTILABEL),
    ],
)
def test_the_task_is_read_off_the_labels(tmp_path, labels, task):
    data = labelled_text(write(tmp_path / "d.jsonl", texts(10, labels)), seed=0)
    assert data.task is task
    assert (len(data.pool), len(data.held_out)) == (8, 2)


def test_a_split_is_kept(tmp_path):
    held_out = {"id": "x", "text": "t", "labels": "a", "split": "test"}
    rows = [*texts(6, lambda n: "ab"[n % 2], split="train"), held_out]
    data = labelled_text(write(tmp_path / "d.jsonl", rows), seed=0)
    assert list(data.held_out.ids) == ["x"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"id": "x", "text": "t"}, "d.jsonl:4: labels: is missing"),
        ({"id": "x", "text": "t", "labels": []}, "d.jsonl:4: labels: is missing"),
        ({"id": "x", "text": " ", "labels": "a"}, "d.jsonl:4: text: is missing"),
        ({"id": "t0", "text": "t", "labels": "a"}, "d.jsonl:4: id: 't0' is on line 1 already"),
        ({"id": "x", "text": "t", "labels": "a", "split": "dev"}, "d.jsonl:4: split: is 'dev', not train or test"),
    ],
)
def test_rows_that_a_campaign_cannot_use_are_named(tmp_path, row, complaint):
    path = write(tmp_path / "d.jsonl", [*texts(3, lambda n: "ab"[n % 2]), row])
    with pytest.raises(InvalidArgument) as caught:
        labelled_text(path, seed=0)
    assert str(caught.value) == complaint


def sized(items, classes):
    some = Labelled(ids=[str(n) for n in range(items)], texts=[""] * items, labels=[()] * items)
    return DemoData(title="", source="", pool=some, held_out=some, classes=["c"] * classes, task=Task.MULTICLASS)


@pytest.mark.parametrize(
    ("items", "classes", "batch", "k"),
    [(1348, 10, 20, 10), (18_200, 151, 302, 10), (200, 10, 9, 10), (1_000_000, 2, 20, 100)],
)
def test_sizes_follow_the_classes_and_the_pool(items, classes, batch, k):
    plan = plan_demo(sized(items, classes), rounds=10, batch=None, k=None, exploration=0, strategy="entropy", seed=0)
    assert (plan.batch, plan.seed_size, plan.k, plan.budget) == (batch, batch, k, 11 * batch)


def test_more_rounds_than_the_pool_can_feed_are_refused():
    with pytest.raises(InvalidArgument, match="rounds"):
        plan_demo(sized(20, 2), rounds=10, batch=None, k=None, exploration=0, strategy="entropy", seed=0)


def test_both_campaigns_have_a_model_that_draws_samples_where_the_strategy_needs_them():
    for strategy, estimator in (("BALDHeuristic", "laplace"), ("margin", "")):
        data = sized(500, 2)
        plan = plan_demo(data, rounds=10, batch=None, k=None, exploration=0, strategy=strategy, seed=0)
        specs = [campaign_spec("c", data, plan, active=active) for active in (True, False)]
        assert [spec.model.uncertainty.estimator for spec in specs] == [estimator] * 2
        assert [spec.strategy.name for spec in specs] == [strategy, "random"]


def test_an_unknown_strategy_ends_the_demo_before_it_begins(cli, tmp_path):
    outcome = cli("demo", "--strategy", "guess", "--directory", str(tmp_path / "demo"))
    assert (outcome.code, "'guess' is none" in outcome.err) == (2, True)
    assert not (tmp_path / "demo").exists()


def test_texts_are_embedded_once_for_an_encoder_that_can_be_known_again(fakes, tmp_path):
    from sealpool.client import LearnerClient

    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "weights").write_bytes(b"1")

    def embedded(*words):
        with LearnerClient(fakes.target) as learner:
            return embed(learner, words, str(encoder), cache=tmp_path / "cache", on_progress=lambda _: None)

    first, again = embedded("a", "bcd"), embedded("a", "bcd")
    np.testing.assert_array_equal(first, [[1, 1], [3, 1]])
    np.testing.assert_array_equal(first, again)
    assert len(fakes.learner.encoders) == 1
    embedded("a", "bce")
    (encoder / "weights").write_bytes(b"12")
    embedded("a", "bcd")
    assert len(fakes.learner.encoders) == 3
