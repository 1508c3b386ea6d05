"""Every model and estimator, trained, asked and measured through a real server."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from learner.problem import Problem, Task
from learner.uncertainty.calibration import expected_calibration_error
from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition
from sealpool.types import LabelledItems
from sealpool.v1 import common_pb2, learner_pb2
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import CLASSES, item_ids, labelled, select, train, train_header
from tests.support.small_models import small_model, text_of, write_tiny_encoder

Serve = Callable[..., LearnerClient]
FULL = common_pb2.PolicySpec(name="full")
PROBLEM = Problem(task=Task.MULTICLASS, classes=tuple(CLASSES))
HELD_OUT = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def index(index: FakeIndex) -> FakeIndex:
    """The items of three clusters, each with a text of its cluster's colour."""
    index.texts = {f"item-{number:03}": text_of(number) for number in range(120)}
    return index


def estimator(name: str, *, samples: int = 0, temperature: bool = False) -> common_pb2.UncertaintySpec:
    return common_pb2.UncertaintySpec(estimator=name, samples=samples, temperature=temperature)


ALL_MODELS = ["logistic_regression", "mlp", "cnn", "bilstm", "transformer"]


class TestEveryModel:
    @pytest.mark.parametrize("name", ALL_MODELS)
    def test_trains_picks_predicts_and_is_measured(
        self, serve: Serve, index: FakeIndex, encoder: str, name: str
    ) -> None:
        client = serve(index)
        told: list[learner_pb2.TrainProgress] = []
        header = train_header(model=small_model(name, encoder=encoder))
        result = client.train(header, labelled(range(30)), on_progress=told.append)
        assert result.examples + result.validation_examples == 30
        assert (result.validation_examples > 0) is (name != "logistic_regression")
        assert math.isnan(result.validation_score) is (name == "logistic_regression")
        assert not result.HasField("warm_from_round")
        assert not result.HasField("calibration")
        assert list(result.notes) == []
        assert [part.iteration for part in told] == sorted(part.iteration for part in told)
        assert {part.queue_place for part in told} == {0}

        quality = client.evaluate(HELD_OUT, labelled(range(60, 120))).quality
        assert quality.accuracy > 0.7

        picks = select(client, range(30), policy=FULL)
        assert len(set(picks.ids)) == 10
        assert not set(picks.ids) & set(item_ids(range(30)))
        assert (picks.strategy, picks.strategy_reason) == ("entropy", "")
        assert np.isfinite(picks.scores).all()

        (by_ids,) = client.predict("c", ids=item_ids(range(60, 120)))
        whole = np.concatenate([chunk.probabilities for chunk in client.predict("c")])
        np.testing.assert_allclose(by_ids.probabilities, whole[60:], atol=1e-5)
        np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
        assert (by_ids.probabilities.argmax(axis=1) == np.arange(60) % 3).mean() == pytest.approx(quality.accuracy)
        error = expected_calibration_error(PROBLEM, by_ids.probabilities, np.arange(60) % 3)
        assert quality.expected_calibration_error == pytest.approx(error, abs=1e-5)

        again = train(client, range(30), model=small_model(name, encoder=encoder))
        assert again.from_checkpoint
        assert again.loss == result.loss

    @pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
    def test_picks_the_same_after_a_restart_and_where_vectors_are_not_kept(
        self, serve: Serve, index: FakeIndex, encoder: str, name: str
    ) -> None:
        first = serve(index)
        train(first, range(30), model=small_model(name, encoder=encoder))
        picks = select(first, range(30), batch_size=25)
        assert select(first, range(30), batch_size=25).ids == picks.ids
        index.backwards = True
        again = select(serve(index, candidate_cache_bytes=100, batch_rows=7), range(30), batch_size=25)
        assert list(again.ids) == list(picks.ids)
        np.testing.assert_allclose(again.scores, picks.scores, rtol=1e-4)

    @pytest.mark.parametrize("name", ["mlp", "cnn"])
    def test_takes_multilabel_campaigns(self, serve: Serve, index: FakeIndex, name: str) -> None:
        client = serve(index)
        examples = LabelledItems(ids=item_ids(range(24)), labels=[[n % 3] if n % 4 else [] for n in range(24)])
        header = train_header(task=common_pb2.TASK_KIND_MULTILABEL, model=small_model(name))
        client.train(header, examples)
        assert len(select(client, range(24), policy=FULL).ids) == 10
        quality = client.evaluate(HELD_OUT, examples).quality
        assert 0 <= quality.expected_calibration_error <= 1


class TestEstimators:
    @pytest.mark.parametrize("name", ["logistic_regression", "mlp", "cnn", "transformer"])
    @pytest.mark.parametrize("drawn", ["mc_dropout", "ensemble", "laplace"])
    def test_an_estimator_that_draws_serves_every_strategy(
        self, serve: Serve, index: FakeIndex, encoder: str, name: str, drawn: str
    ) -> None:
        client = serve(index)
        few = common_pb2.NeuralSpec(epochs=3) if name != "logistic_regression" else None
        spec = small_model(name, encoder=encoder, uncertainty=estimator(drawn, samples=4), neural=few)
        train(client, range(30), model=spec, seed=2**64 - 1)
        restarted = serve(index)
        for strategy in ("entropy", "bald"):
            spec_of = common_pb2.StrategySpec(name=strategy)
            picks = select(client, range(30), policy=FULL, strategy=spec_of)
            assert len(set(picks.ids)) == 10
            assert np.isfinite(picks.scores).all()
            assert select(restarted, range(30), policy=FULL, strategy=spec_of).ids == picks.ids

    @pytest.mark.parametrize("name", ["logistic_regression", "mlp", "cnn"])
    def test_softmax_draws_no_samples_and_the_refusal_names_what_to_set(
        self, serve: Serve, index: FakeIndex, name: str
    ) -> None:
        client = serve(index)
        train(client, range(30), model=small_model(name))
        for strategy in ("bald", "batch_bald", "vote_entropy", "power_bald"):
            with pytest.raises(FailedPrecondition, match=r"uncertainty\.estimator") as refused:
                select(client, range(30), strategy=common_pb2.StrategySpec(name=strategy))
            assert refused.value.field == "model.uncertainty.estimator"

    @pytest.mark.parametrize("drawn", ["softmax", "mc_dropout", "ensemble", "laplace"])
    @pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
    def test_a_temperature_is_told_and_predicted_with(
        self, serve: Serve, index: FakeIndex, name: str, drawn: str
    ) -> None:
        client = serve(index)
        few = common_pb2.NeuralSpec(epochs=5) if name == "mlp" else None
        scaled = small_model(
            name, validation_share=0.4, uncertainty=estimator(drawn, samples=0, temperature=True), neural=few
        )
        result = train(client, range(60), model=scaled)
        assert 0.05 <= result.calibration.temperature <= 20
        assert 0 <= result.calibration.error_after <= 1
        assert 0 <= result.calibration.error_before <= 1
        assert result.validation_examples > 10
        assert 0 <= result.validation_score <= 1
        plain = small_model(name, validation_share=0.4, uncertainty=estimator(drawn), neural=few)
        assert not train(client, range(60), model=plain, campaign="plain").HasField("calibration")
        ((one,), (other,)) = (client.predict(campaign, ids=item_ids(range(60, 90))) for campaign in ("c", "plain"))
        assert (one.probabilities.argmax(axis=1) == other.probabilities.argmax(axis=1)).all()
        sharper = one.probabilities.max(axis=1) - other.probabilities.max(axis=1)
        assert (sharper * (1 - result.calibration.temperature) >= -1e-5).all()
        assert len(select(client, range(60), policy=FULL).ids) == 10

    def test_a_temperature_without_items_to_fit_it_on_is_refused(self, serve: Serve, index: FakeIndex) -> None:
        spec = common_pb2.ModelSpec(uncertainty=common_pb2.UncertaintySpec(temperature=True))
        with pytest.raises(FailedPrecondition) as refused:
            train(serve(index), range(3), model=spec)
        assert refused.value.field == "header.model.validation_share"


class TestBeginnings:
    def test_a_warm_round_goes_on_from_the_latest_earlier_one_of_the_same_spec(
        self, serve: Serve, index: FakeIndex
    ) -> None:
        client = serve(index)
        warm = small_model("mlp", retrain=common_pb2.RETRAIN_WARM)
        assert not train(client, range(30), round=0, model=warm).HasField("warm_from_round")
        train(client, range(36), round=2, model=small_model("mlp"))
        result = train(client, range(42), round=5, model=warm)
        assert (result.HasField("warm_from_round"), result.warm_from_round) == (True, 0)
        assert train(client, range(48), round=6, model=warm).warm_from_round == 5
        again = train(client, range(48), round=6, model=warm)
        assert again.from_checkpoint
        assert again.warm_from_round == 5
        assert not train(client, range(30), round=0, model=warm).HasField("warm_from_round")

    def test_a_warm_round_whose_forerunner_is_trained_again_is_trained_again(
        self, serve: Serve, index: FakeIndex
    ) -> None:
        client = serve(index)
        warm = small_model("mlp", retrain=common_pb2.RETRAIN_WARM)
        train(client, range(30), model=warm)
        train(client, range(36), round=1, model=warm)
        assert train(client, range(36), round=1, model=warm).from_checkpoint
        train(client, range(33), model=warm)
        assert not train(client, range(36), round=1, model=warm).from_checkpoint

    @pytest.mark.parametrize(("name", "goes_on"), [("logistic_regression", False), ("mlp", False), ("cnn", True)])
    def test_a_pool_of_another_dimension_begins_models_of_vectors_from_scratch(
        self, serve: Serve, index: FakeIndex, name: str, goes_on: bool
    ) -> None:
        warm = small_model(name, retrain=common_pb2.RETRAIN_WARM)
        train(serve(index), range(30), model=warm)
        vectors = {item_id: [*vector.tolist(), 1.0] for item_id, vector in index.vectors.items()}
        client = serve(FakeIndex(vectors, texts=index.texts))
        assert train(client, range(36), round=1, model=warm).HasField("warm_from_round") is goes_on
        assert train(client, range(42), round=2, model=warm).warm_from_round == 1

    def test_at_saturation_says_which_model_is_kept(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        spec = small_model("mlp", retrain=common_pb2.RETRAIN_AT_SATURATION, validation_share=0.4)
        first = train(client, range(60), model=spec)
        assert 0 < first.validation_score <= 1
        assert list(first.notes) == []
        second = train(client, range(60), round=1, model=spec)  # nothing new to learn
        (note,) = second.notes
        assert "stalled" in note
        assert second.HasField("warm_from_round") is ("trained warm is kept" in note)
        assert train(client, range(60), round=1, model=spec).notes == second.notes

    def test_a_class_with_one_label_and_a_training_cut_short_are_noted(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        assert list(train(client, [0, 3, 1, 4, 2]).notes) == ["there is one label only of 'blue'"]
        short = small_model("mlp", neural=common_pb2.NeuralSpec(epochs=100_000, patience=100_000, max_seconds=0.05))
        (note,) = train(client, range(30), round=1, model=short).notes
        assert note.startswith("Training stopped after 0.05 s")


def test_a_checkpoint_of_the_first_format_is_refused_and_trained_again(
    serve: Serve, index: FakeIndex, tmp_path: Path
) -> None:
    train(serve(index))
    path = tmp_path / "data/campaigns/c/0.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = {**file.metadata(), "format": "1"}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    client = serve(index)
    for call in (
        lambda: select(client),
        lambda: list(client.predict("c")),
        lambda: client.evaluate(HELD_OUT, labelled([1])),
    ):
        with pytest.raises(FailedPrecondition, match="has format 1; this learner reads 2: train the round again"):
            call()
    assert not train(client).from_checkpoint
    assert len(select(client).ids) == 10
    # A warm round looks for one that it can read.
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    warm = common_pb2.ModelSpec(retrain=common_pb2.RETRAIN_WARM)
    assert not train(client, round=1, model=warm).HasField("warm_from_round")
