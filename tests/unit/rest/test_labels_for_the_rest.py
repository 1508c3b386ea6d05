"""Labels for the rest of a pool: what is written, what is gone on with, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.rest.deciding import By, Rule, decide
from sealpool.rest.estimating import estimate
from sealpool.rest.labelling import label_rest
from sealpool.rest.manifest import Manifest, RestRequest, read_manifest, write_manifest
from sealpool.statistics import Share
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from tests.unit.rest.pool_of_ten import AUDIT, EVALUATION, FakePool

MODEL = [0.1, 0.9, 0.6, 0.45, 0.05, 0.99, 0.3, 0.7, 0.2, 0.8]


def run(pool: FakePool, directory: Path, *, part_rows: int = 4, restart: bool = False, **asked: Any) -> Manifest:
    request = RestRequest(campaign="c", **asked)
    return label_rest(
        request, directory, scheduler=pool, learner=pool, index=pool, part_rows=part_rows, restart=restart
    )


def rows(directory: Path) -> list[dict[str, Any]]:
    manifest = read_manifest(directory)
    assert manifest is not None
    return [row for part in manifest.parts for row in pq.read_table(directory / part.file).to_pylist()]


def test_every_item_has_a_label_with_its_confidence_source_model_and_pool(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.say("i1", "a")
    manifest = run(pool, tmp_path)
    found = rows(tmp_path)
    assert [row["id"] for row in found] == pool.ids
    assert found[0]["labels"] == "a"
    assert found[0]["confidence"] == pytest.approx(0.9)
    assert found[0]["source"] == "model"
    assert found[0]["probabilities"] == pytest.approx([0.9, 0.1])
    assert (found[0]["round"], found[0]["pool_version"]) == (3, 7)
    assert (found[1]["labels"], found[1]["source"], found[1]["confidence"]) == ("a", "oracle", 1)
    assert found[1]["probabilities"] == pytest.approx([0.1, 0.9])
    assert [part.rows for part in manifest.parts] == [4, 4, 2]
    assert (manifest.rows, manifest.labelled, manifest.by_people, manifest.complete) == (10, 9, 1, True)


def test_less_sure_items_stay_without_a_label(tmp_path: Path) -> None:
    manifest = run(FakePool(MODEL), tmp_path, min_confidence=0.8)
    unlabelled = [row["id"] for row in rows(tmp_path) if row["labels"] is None]
    assert unlabelled == ["i2", "i3", "i6", "i7"]
    assert {row["source"] for row in rows(tmp_path) if row["labels"] is None} == {None}
    assert manifest.labelled == 6


def test_with_both_a_label_needs_agreement_or_a_model_that_is_trusted(tmp_path: Path) -> None:
    propagated = [0.2, 0.8, 0.3, 0.4, 0.9, 0.1, 0.3, 0.6, 0.4, 0.7]
    pool = FakePool(MODEL, propagated)
    pool.mass[7] = 0
    run(pool, tmp_path / "agree", by=By.BOTH)
    found = rows(tmp_path / "agree")
    assert [row["id"] for row in found if row["labels"] is None] == ["i2", "i4", "i5", "i7"]
    assert found[0]["confidence"] == pytest.approx(0.8)
    assert found[0]["propagated"] == pytest.approx([0.8, 0.2])
    run(pool, tmp_path / "trust", by=By.BOTH, trust_model_above=0.97)
    trusted = {row["id"]: row for row in rows(tmp_path / "trust")}
    assert trusted["i5"]["labels"] == "b"
    assert trusted["i5"]["source"] == "model"
    assert trusted["i5"]["confidence"] == pytest.approx(0.99)
    assert trusted["i4"]["labels"] is None
    assert trusted["i0"]["source"] == "both"


def test_propagation_labels_what_it_reaches_from_the_labels_that_models_are_trained_on(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.mass[2] = 0
    pool.say("i0", "a")
    pool.say("i5", "b", purpose=EVALUATION)
    pool.say("i6", "b", purpose=AUDIT)
    run(pool, tmp_path, by=By.PROPAGATION, k=4, alpha=0.5)
    (seeds,) = pool.seeds
    assert (list(seeds.ids), list(seeds.labels)) == (["i0"], [[0]])
    assert (pool.headers[0].k, pool.headers[0].alpha) == (4, 0.5)
    found = {row["id"]: row for row in rows(tmp_path)}
    assert found["i2"]["labels"] is None
    assert found["i1"]["source"] == "propagation"
    assert found["i1"]["round"] is None
    assert [found[item]["source"] for item in ("i0", "i5", "i6")] == ["oracle"] * 3


def test_labels_of_another_evaluation_pool_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.spec.evaluation_pool = "elsewhere"
    pool.say("i1", "a", purpose=EVALUATION)
    run(pool, tmp_path)
    assert rows(tmp_path)[1]["source"] == "model"


def test_synthetic_items_are_left_out_and_counted(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.ids[2] = ItemId("synthetic:x")
    manifest = run(pool, tmp_path, part_rows=3)
    assert "synthetic:x" not in [row["id"] for row in rows(tmp_path)]
    assert (manifest.rows, manifest.seen) == (9, 10)


def stopped(pool: FakePool, directory: Path, after: int) -> Manifest:
    """Leave a directory as a run that died has it."""
    manifest = run(pool, directory)
    left = replace(manifest, parts=manifest.parts[:after], seen=4 * after, complete=False)
    write_manifest(directory, left)
    for part in manifest.parts[after:]:
        (directory / part.file).write_bytes(b"half of it")
    pool.predicted.clear()
    return left


@pytest.mark.parametrize("by", list(By))
def test_a_run_that_died_is_gone_on_with(tmp_path: Path, by: By) -> None:
    pool = FakePool(MODEL, MODEL[::-1])
    whole = run(pool, tmp_path / "whole", by=by)
    pool_again = FakePool(MODEL, MODEL[::-1])
    manifest = run(pool_again, tmp_path / "killed", by=by)
    write_manifest(tmp_path / "killed", replace(manifest, parts=manifest.parts[:1], seen=4, complete=False))
    (tmp_path / "killed" / manifest.parts[1].file).write_bytes(b"half of it")
    first = (tmp_path / "killed" / manifest.parts[0].file).stat().st_mtime_ns
    pool_again.predicted.clear()
    pool_again.say("i8", "b")  # what came since does not count
    assert run(pool_again, tmp_path / "killed", by=by) == whole
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert (tmp_path / "killed" / manifest.parts[0].file).stat().st_mtime_ns == first
    assert sum(pool_again.predicted) == (6 if by is not By.PROPAGATION else 0)


def test_it_goes_on_with_the_model_that_it_was_begun_with(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    stopped(pool, tmp_path, 1)
    pool.latest = 5
    run(pool, tmp_path)
    assert {row["round"] for row in rows(tmp_path)} == {3}


def test_another_request_round_or_pool_is_refused_and_a_restart_forgets(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    stopped(pool, tmp_path, 1)
    with pytest.raises(FailedPrecondition, match=r"min_confidence 0\.0 \(now 0\.5\)"):
        run(pool, tmp_path, min_confidence=0.5)
    with pytest.raises(FailedPrecondition, match=r"round 3 \(now 5\)"):
        run(pool, tmp_path, round=5)
    pool.version = 8
    with pytest.raises(FailedPrecondition, match="is at version 8, and was at 7"):
        run(pool, tmp_path)
    manifest = run(pool, tmp_path, restart=True, min_confidence=0.5, part_rows=20)
    assert (manifest.pool_version, len(manifest.parts), manifest.rows) == (8, 1, 10)
    assert [path.name for path in sorted(tmp_path.glob("part-*"))] == ["part-00000.parquet"]


def test_a_directory_that_is_complete_is_left_as_it_is(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    first = run(pool, tmp_path)
    pool.predicted.clear()
    pool.version = 9
    assert run(pool, tmp_path) == first
    assert run(pool, tmp_path, round=3) == first
    assert pool.predicted == []


def test_a_pool_that_changes_between_the_two_ways_is_refused(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    propagate = pool.propagate

    def late(*arguments: Any) -> Any:
        for answer, mass in propagate(*arguments):
            yield replace(answer, ids=[ItemId("new") if item == "i4" else item for item in answer.ids]), mass

    pool.propagate = late  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition, match="has changed between"):
        run(pool, tmp_path, by=By.BOTH)


def test_bad_numbers_and_damaged_manifests_are_refused(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    with pytest.raises(InvalidArgument, match="min_confidence"):
        run(pool, tmp_path, min_confidence=float("nan"))
    with pytest.raises(InvalidArgument, match="trust_model_above"):
        run(pool, tmp_path, trust_model_above=0.9)
    with pytest.raises(FailedPrecondition, match="empty"):
        run(FakePool([]), tmp_path)
    with pytest.raises(NotFound, match="label-rest"):
        estimate(tmp_path, scheduler=pool)
    (tmp_path / "_manifest.json").write_text('{"format": 1}')
    with pytest.raises(FailedPrecondition, match="damaged"):
        run(pool, tmp_path)


def test_several_classes_are_a_list_and_as_sure_as_the_least_sure_of_them(tmp_path: Path) -> None:
    pool = FakePool([0.1, 0.6, 0.5])
    pool.spec.task = common_pb2.TASK_KIND_MULTILABEL
    pool.say("i2", "a", "b")
    run(pool, tmp_path)
    found = rows(tmp_path)
    assert [row["labels"] for row in found] == [["a"], ["b"], ["a", "b"]]
    assert found[1]["confidence"] == pytest.approx(0.6)


def test_the_audit_says_how_right_the_labels_are(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.say("i0", "a")
    run(pool, tmp_path, min_confidence=0.75)
    for item, said in (("i1", "b"), ("i2", "a"), ("i4", "a"), ("i5", "a"), ("i9", "b"), ("i0", "b")):
        pool.say(item, said, purpose=AUDIT)
    found = estimate(tmp_path, scheduler=pool, audit=8)
    assert (found.drawn, found.outstanding) == (8, 2)
    assert (found.everything.right, found.everything.of) == (3, 5)  # i0 is trained on
    assert (found.given_only.right, found.given_only.of) == (3, 4)
    assert (found.rest, found.given) == (9, 5)
    by_name = {one.name: one for one in found.classes}
    assert (by_name["b"].right_where_said.right, by_name["b"].right_where_said.of) == (2, 3)
    # i5 is "a" and below the cut: it has no label, so it was not found.
    assert (by_name["a"].found_where_true.right, by_name["a"].found_where_true.of) == (1, 3)


def test_labels_written_after_the_audit_are_judged_by_what_the_rule_says_not_by_the_audit(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    pool.say("i5", "a", purpose=AUDIT)
    run(pool, tmp_path)
    assert rows(tmp_path)[5]["labels"] == "a"
    found = estimate(tmp_path, scheduler=pool)
    assert (found.everything.right, found.everything.of) == (0, 1)


def test_without_audit_labels_nothing_is_claimed(tmp_path: Path) -> None:
    pool = FakePool(MODEL)
    run(pool, tmp_path)
    found = estimate(tmp_path, scheduler=pool)
    assert (found.drawn, found.outstanding, found.everything.of) == (0, 0, 0)
    assert math.isnan(found.everything.value)
    assert found.coverage == 1


@given(right=st.integers(0, 60), wrong=st.integers(0, 60))
def test_the_interval_holds_the_shares_whose_own_error_reaches_what_was_seen(right: int, wrong: int) -> None:
    found = Share(right=right, of=right + wrong)
    if not found.of:
        assert math.isnan(found.low)
        return
    # Wilson: the p with |p̂ − p| ≤ z·√(p(1−p)/n).
    grid = np.linspace(0, 1, 20_001)
    inside = grid[np.abs(found.value - grid) <= 1.959964 * np.sqrt(grid * (1 - grid) / found.of) + 1e-12]
    assert found.low == pytest.approx(inside.min(), abs=1e-4)
    assert found.high == pytest.approx(inside.max(), abs=1e-4)


def test_the_rule_for_both_is_what_its_description_says() -> None:
    rng = np.random.default_rng(0)
    model, propagated = (rng.dirichlet([1, 1, 1], 500).astype(np.float32) for _ in range(2))
    mass = (rng.random(500) < 0.8).astype(np.float32)
    rule = Rule(by=By.BOTH, multilabel=False, min_confidence=0.55, trust_model_above=0.9)
    found = decide(rule, model=model, propagated=propagated, mass=mass)
    for row in range(500):
        one, other = int(model[row].argmax()), int(propagated[row].argmax())
        agreed, trusted = mass[row] > 0 and one == other, model[row, one] >= np.float32(0.9)
        sure = model[row, one] if trusted else min(model[row, one], propagated[row, other])
        assert found.given[row] == bool((agreed or trusted) and sure >= np.float32(0.55))
        assert found.labels[row].argmax() == one
