"""A checkpoint is read back as it was written, or not at all."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from learner.checkpoint_info import Calibration, CheckpointInfo
from learner.checkpoints import Checkpoint, CheckpointStore
from learner.models import make_classifier
from learner.options import ModelOptions, NeuralOptions, Retrain
from learner.ports import Inputs, TrainingSet
from learner.problem import Problem, Task
from sealpool.errors import FailedPrecondition, NotFound

CPU = torch.device("cpu")
OPTIONS = ModelOptions(l2=0.5, neural=NeuralOptions(hidden=(3, 4)), retrain=Retrain.WARM)


def make_checkpoint(*, campaign: str = "c", round_number: int = 0, fingerprint: str = "f" * 64) -> Checkpoint:
    problem = Problem(task=Task.BINARY, classes=("no", "ja ✓"))
    classifier = make_classifier(OPTIONS, problem)
    vectors = np.random.default_rng(round_number).normal(size=(20, 3)).astype(np.float32)
    report = classifier.fit(
        TrainingSet(vectors=vectors, targets=np.arange(20) % 2),
        validation=None,
        warm=False,
        seed=1,
        device=CPU,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    info = CheckpointInfo(
        campaign=campaign,
        round=round_number,
        problem=problem,
        model=OPTIONS,
        seed=1,
        fingerprint=fingerprint,
        examples_digest="e" * 64,
        class_counts=(10, 10),
        pool="pool",
        pool_version=7,
        dimension=3,
        examples=20,
        missing=1,
        iterations=report.iterations,
        loss=report.loss,
        validation_examples=2,
        validation_score=0.5,
        warm_from_round=None,
        calibration=Calibration(temperature=1.5, error_before=0.2, error_after=0.1),
        notes=("a class with one label",),
    )
    return Checkpoint(info=info, classifier=classifier)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep=3, device=CPU)


def test_what_was_saved_is_loaded(store: CheckpointStore, tmp_path: Path) -> None:
    saved = make_checkpoint()
    store.save(saved)
    loaded = store.load("c", 0)
    assert loaded.info == saved.info
    inputs = Inputs(vectors=torch.randn(5, 3))
    assert torch.equal(loaded.classifier.predict_proba(inputs), saved.classifier.predict_proba(inputs))
    assert [path.name for path in (tmp_path / "campaigns" / "c").iterdir()] == ["0.safetensors"]


def test_a_round_without_a_checkpoint_is_not_found(store: CheckpointStore) -> None:
    with pytest.raises(NotFound):
        store.load("c", 0)
    with pytest.raises(NotFound):
        store.latest_round("c")


def test_the_oldest_go_and_the_one_just_written_stays(store: CheckpointStore) -> None:
    for round_number in (9, 10, 11, 12, 2):
        store.save(make_checkpoint(round_number=round_number))
    assert store.latest_round("c") == 12
    for round_number in (2, 11, 12):
        assert store.load("c", round_number).info.round == round_number
    with pytest.raises(NotFound):
        store.load("c", 9)


def change_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [change_bit, lambda content: content[:-5], lambda _: b"", lambda content: b"\xff" * len(content)],
    ids=["a flipped bit", "a missing end", "nothing", "noise"],
)
def test_a_damaged_checkpoint_says_so(store: CheckpointStore, tmp_path: Path, damage) -> None:
    store.save(make_checkpoint())
    path = tmp_path / "campaigns" / "c" / "0.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FailedPrecondition, match=r"damaged.*train the round again"):
        store.load("c", 0)


def test_another_format_says_so(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(make_checkpoint())
    path = tmp_path / "campaigns" / "c" / "0.safetensors"
    path.write_bytes(safetensors.numpy.save({"weights": np.zeros(2)}, {"format": "99"}))
    with pytest.raises(FailedPrecondition, match="format 99; this learner reads 2"):
        store.load("c", 0)


def test_a_checkpoint_that_was_written_again_is_read_again(store: CheckpointStore) -> None:
    store.save(make_checkpoint())
    first = store.load("c", 0)
    assert store.load("c", 0) is first
    assert store.load_anew("c", 0) is not first  # whoever trains it on must not change what others use
    store.save(make_checkpoint(fingerprint="e" * 64))
    assert store.load("c", 0) is not first


def test_a_learner_loads_what_another_saved_and_saved_again(store: CheckpointStore, tmp_path: Path) -> None:
    other = CheckpointStore(tmp_path, keep=3, device=CPU)
    with pytest.raises(NotFound):
        other.load("c", 0)
    store.save(make_checkpoint())
    assert other.load("c", 0).info.fingerprint == "f" * 64
    store.save(make_checkpoint(fingerprint="e" * 64))
    assert other.load("c", 0).info.fingerprint == "e" * 64
    assert other.latest_round("c") == 0


def test_of_two_learners_that_trained_the_same_the_first_one_s_model_stays(
    store: CheckpointStore, tmp_path: Path
) -> None:
    store.save(make_checkpoint())
    held = store.load("c", 0)
    late = make_checkpoint()
    assert CheckpointStore(tmp_path, keep=3, device=CPU).save(late) == held.info
    assert store.load("c", 0) is held


def test_a_damaged_checkpoint_is_replaced_by_one_that_was_trained_on_the_same(
    store: CheckpointStore, tmp_path: Path
) -> None:
    store.save(make_checkpoint())
    path = tmp_path / "campaigns" / "c" / "0.safetensors"
    path.write_bytes(change_bit(path.read_bytes()))
    store.save(make_checkpoint())
    assert store.load("c", 0).info.fingerprint == "f" * 64


def test_learners_that_save_load_and_prune_at_once_do_no_damage(tmp_path: Path) -> None:
    checkpoints = [make_checkpoint(round_number=n, fingerprint=mark * 64) for n in range(4) for mark in "ef"]
    together = threading.Barrier(4)

    def learn(number: int) -> int:
        store, found = CheckpointStore(tmp_path, keep=2, device=CPU), 0
        for turn in range(40):
            together.wait(30)
            store.save(checkpoints[(number + turn) % len(checkpoints)])
            for round_number in range(4):
                try:
                    assert store.load_anew("c", round_number).info.round == round_number
                    found += 1
                except NotFound:
                    continue
        return found

    with ThreadPoolExecutor(4) as threads:
        assert min(threads.map(learn, range(4))) > 0
    names = sorted(path.name for path in (tmp_path / "campaigns" / "c").iterdir())
    assert {"2.safetensors", "3.safetensors"} <= set(names)
    assert not [name for name in names if name.endswith(".new")]


def test_what_a_killed_learner_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    now = 2e9
    store = CheckpointStore(tmp_path, keep=3, device=CPU, now=lambda: now)
    folder = tmp_path / "campaigns" / "c"
    folder.mkdir(parents=True)
    for name, age_s in (("old", 100_000), ("young", 1_000)):
        left = folder / f".7.safetensors.{name}.new"
        left.write_bytes(b"half")
        os.utime(left, (now - age_s, now - age_s))
    store.save(make_checkpoint())
    assert sorted(path.name for path in folder.iterdir()) == [".7.safetensors.young.new", "0.safetensors"]


def test_a_file_that_another_machine_replaced_while_it_was_read_is_read_again(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(make_checkpoint())
    read_bytes, stale = Path.read_bytes, iter([True, False, True, True, True])

    def read(path: Path) -> bytes:
        if next(stale):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert store.load("c", 0).info.round == 0
    with pytest.raises(NotFound):  # it keeps going away
        store.load_anew("c", 0)
