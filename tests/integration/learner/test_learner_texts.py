"""Models that read texts get them with the candidates, and say which item has none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.v1 import common_pb2, learner_pb2
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import item_ids, labelled, select, select_header, train
from tests.support.small_models import COLOURS, small_model, text_of, write_tiny_encoder

Serve = Callable[..., LearnerClient]
FULL = common_pb2.PolicySpec(name="full")
HELD_OUT = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")
READ_TEXTS = ["cnn", "bilstm", "transformer"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def index(index: FakeIndex) -> FakeIndex:
    """The items of three clusters, each with a text of its cluster's colour."""
    index.texts = {f"item-{number:03}": text_of(number) for number in range(120)}
    return index


@pytest.mark.parametrize("name", READ_TEXTS)
def test_predicts_texts_as_it_does_the_items_that_have_them(
    serve: Serve, index: FakeIndex, encoder: str, name: str
) -> None:
    client = serve(index)
    train(client, range(30), model=small_model(name, encoder=encoder))
    (by_ids,) = client.predict("c", ids=item_ids(range(40, 70)))
    (by_texts,) = client.predict("c", texts=[text_of(number) for number in range(40, 70)])
    np.testing.assert_allclose(by_texts.probabilities, by_ids.probabilities, atol=1e-5)
    assert by_texts.classes == list(COLOURS)
    assert list(by_texts.ids) == []
    with pytest.raises(FailedPrecondition, match="reads texts") as refused:
        list(client.predict("c", vectors=np.zeros((1, 4), np.float32)))
    assert refused.value.field == "vectors"
    with pytest.raises(FailedPrecondition, match="no text"):
        list(client.predict("c", texts=["red", ""]))


@pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
def test_a_model_of_vectors_takes_no_texts(serve: Serve, index: FakeIndex, name: str) -> None:
    client = serve(index)
    train(client, range(30), model=small_model(name))
    with pytest.raises(FailedPrecondition, match="takes vectors") as refused:
        list(client.predict("c", texts=["red"]))
    assert refused.value.field == "texts"


def test_an_item_without_a_text_is_named_wherever_it_is_needed(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    del index.texts["item-004"]
    for numbers, campaign in ((range(9), "c"), ([1, 2, 4], "d")):
        with pytest.raises(FailedPrecondition, match="'item-004'"):
            train(client, numbers, campaign=campaign, model=small_model("cnn"))
    train(client, range(5, 30), model=small_model("cnn"))
    with pytest.raises(FailedPrecondition, match="'item-004'"):
        select(client, range(5, 30), policy=FULL)
    with pytest.raises(FailedPrecondition, match="'item-004'"):
        client.evaluate(HELD_OUT, labelled(range(9)))
    for ids in (item_ids(range(9)), None):
        with pytest.raises(FailedPrecondition, match="'item-004'"):
            list(client.predict("c", ids=ids))
    index.texts["item-004"] = text_of(4)
    index.put("item-004", [0, 0, 0, 1])
    assert len(select(client, range(5, 30), policy=FULL).ids) == 10


def test_a_model_of_vectors_minds_no_missing_text_also_after_one_of_texts(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    train(client, range(30), model=small_model("cnn"))
    select(client, range(30), policy=FULL)
    index.texts.clear()
    index.put("item-100", [0, 0, 0, 1])
    train(client, range(30), round=1)
    assert len(select(client, range(30), round=1, policy=FULL).ids) == 10
    header = select_header(
        policy=FULL,
        strategy=common_pb2.StrategySpec(name="k_center"),
        without_model=True,
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=COLOURS,
    )
    assert len(client.select(header, item_ids(range(30)), [True] * 30, []).ids) == 10


def test_texts_are_read_once_also_where_vectors_were_read_without_them(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    for round_number, name in enumerate(("logistic_regression", "cnn", "logistic_regression", "cnn")):
        train(client, range(9 if round_number < 3 else 12), round=round_number, model=small_model(name))
    assert [len(ids) for call, ids in index.calls if call == "get_items"] == [9, 9, 3]


def test_candidates_brought_by_a_pick_are_read_too(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    policy = common_pb2.PolicySpec(k=3)
    train(client, range(9), model=small_model("cnn"))
    plain = select(client, policy=policy, batch_size=40)
    policy.growth = common_pb2.CANDIDATE_GROWTH_PICK
    grown = select(client, policy=policy, batch_size=40)
    assert len(grown.ids) == 40 > len(plain.ids)
    brought = sorted(set(grown.ids) - set(plain.ids))
    for item_id in brought:
        del index.texts[item_id]
    with pytest.raises(FailedPrecondition, match="no text"):
        select(client, policy=policy, batch_size=40)


def test_excluded_items_are_not_picked_and_all_others_may_be(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, max_batch=200)
    train(client, range(9), model=small_model("cnn"))
    excluded = item_ids(range(20, 60))
    picks = select(client, policy=FULL, batch_size=200, excluded=excluded)
    assert sorted(picks.ids) == item_ids([*range(9, 20), *range(60, 120)])
    assert np.isfinite(picks.scores).all()


def test_an_encoder_that_is_not_there_is_refused(serve: Serve, index: FakeIndex, tmp_path: Path) -> None:
    with pytest.raises((FailedPrecondition, InvalidArgument)):
        train(serve(index), range(9), model=small_model("transformer", encoder=str(tmp_path / "nothing")))
