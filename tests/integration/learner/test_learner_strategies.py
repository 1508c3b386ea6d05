"""Every strategy through a real server: what it takes, what it answers, and what it refuses."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2
from sealpool.vocabulary.strategies import STRATEGIES, Need
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import CLASSES, item_ids, select, select_header, train, train_header
from tests.support.small_models import text_of

Serve = Callable[..., LearnerClient]
FULL = common_pb2.PolicySpec(name="full")
TASKS = {
    "binary": common_pb2.TASK_KIND_BINARY,
    "multiclass": common_pb2.TASK_KIND_MULTICLASS,
    "multilabel": common_pb2.TASK_KIND_MULTILABEL,
}
NAMES = {task: {name for name, entry in STRATEGIES.items() if task in entry.tasks} for task in TASKS}
DRAWS = common_pb2.ModelSpec(uncertainty=common_pb2.UncertaintySpec(estimator="mc_dropout", samples=5))
WORDS = common_pb2.ModelSpec(
    name="cnn",
    uncertainty=common_pb2.UncertaintySpec(estimator="mc_dropout", samples=3),
    neural=common_pb2.NeuralSpec(hidden=[4], epochs=3),
    text=common_pb2.TextSpec(embedding=8),
)
WITHOUT_MODEL = sorted(name for name, entry in STRATEGIES.items() if Need.MODEL not in entry.needs)
LABELLED = 30
LARGEST_SEED = 2**64 - 1


@pytest.fixture
def index(index: FakeIndex) -> FakeIndex:
    """The items of three clusters, some of them alike, each with a text of its cluster's colour."""
    for number in range(60, 120, 6):
        index.vectors[ItemId(f"item-{number:03}")] = index.vectors[ItemId("item-060")]
    index.texts = {f"item-{number:03}": text_of(number) for number in range(120)}
    return index


def labels_of(task: str) -> list[list[int]]:
    """Return those of the first items: their cluster, whether it is the first, or it and at times the next."""
    clusters = [number % 3 for number in range(LABELLED)]
    if task == "binary":
        return [[int(cluster == 0)] for cluster in clusters]
    if task == "multilabel":
        return [sorted({cluster, (cluster + number // 3 % 2) % 3}) for number, cluster in enumerate(clusters)]
    return [[cluster] for cluster in clusters]


def classes_of(task: str) -> list[str]:
    return ["no", "yes"] if task == "binary" else CLASSES


def train_on(client: LearnerClient, task: str, model: common_pb2.ModelSpec = DRAWS) -> None:
    examples = LabelledItems(ids=item_ids(range(LABELLED)), labels=labels_of(task))
    client.train(train_header(task=TASKS[task], classes=classes_of(task), model=model), examples)


def strategy_of(name: str, task: str = "multiclass", **options: object) -> common_pb2.StrategySpec:
    """Return a strategy with what it cannot do without."""
    spec = common_pb2.StrategySpec(name=name, **options)  # type: ignore[arg-type]
    if "positive_class" in STRATEGIES[name].options and task != "binary":
        spec.positive_class = CLASSES[1]
    return spec


def pick(
    client: LearnerClient, strategy: common_pb2.StrategySpec, task: str = "multiclass", **changes: object
) -> learner_pb2.SelectResponse:
    fields = {"strategy": strategy, "policy": FULL, "seed": LARGEST_SEED, **changes}
    return select(client, range(LABELLED), classes=labels_of(task), **fields)  # type: ignore[arg-type]


def pick_without_model(
    client: LearnerClient, strategy: common_pb2.StrategySpec, count: int = 0, **changes: object
) -> learner_pb2.SelectResponse:
    """Pick with the first `count` items labelled, before anything was trained."""
    header = select_header(
        strategy=strategy,
        policy=FULL,
        without_model=True,
        **{"task": common_pb2.TASK_KIND_MULTICLASS, "classes": CLASSES, **changes},
    )
    return client.select(header, item_ids(range(count)), [True] * count, [], classes=labels_of("multiclass")[:count])


def check(answer: learner_pb2.SelectResponse, count: int = 10) -> list[str]:
    ids = list(answer.ids)
    assert len(set(ids)) == len(ids) == count
    assert not set(ids) & set(item_ids(range(LABELLED)))
    assert np.isfinite(answer.scores).all()
    assert set(answer.origins) == {common_pb2.PICK_ORIGIN_CANDIDATE}
    return ids


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_strategy_picks_the_same_also_after_a_restart_with_a_cold_cache(
    serve: Serve, index: FakeIndex, task: str
) -> None:
    client = serve(index)
    train_on(client, task)
    answers = {name: pick(client, strategy_of(name, task), task) for name in sorted(NAMES[task])}
    index.backwards = True
    restarted = serve(index, batch_rows=11, candidate_cache_bytes=100)
    for name, answer in answers.items():
        ids = check(answer)
        if name != "auto":
            assert (answer.strategy, answer.strategy_reason) == (name, "")
        for learner in (client, restarted):
            again = pick(learner, strategy_of(name, task), task)
            assert list(again.ids) == ids, name
            assert (again.strategy, again.strategy_reason) == (answer.strategy, answer.strategy_reason)
            np.testing.assert_allclose(again.scores, answer.scores, rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_model_of_texts_serves_every_strategy_that_does_not_change_vectors(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    train_on(client, "multiclass", WORDS)
    index.backwards = True
    restarted = serve(index)
    for name in sorted(NAMES["multiclass"] - {"drop_query"}):
        assert check(pick(client, strategy_of(name))) == check(pick(restarted, strategy_of(name))), name
    with pytest.raises(FailedPrecondition, match="reads texts") as refused:
        pick(client, strategy_of("drop_query"))
    assert refused.value.field == "header.strategy.name"


LARGEST = 2**32 - 1
EXTREMES: list[tuple[str, dict[str, object]]] = [
    ("typiclust", {"neighbors": LARGEST}),
    ("typiclust", {"clusters": LARGEST}),
    ("prob_cover", {"radius": 2}),
    ("prob_cover", {"radius": 1e-9}),
    ("prob_cover", {"clusters": LARGEST}),
    ("graph_density", {"neighbors": LARGEST}),
    ("cluster_margin", {"clusters": LARGEST}),
    ("cal", {"neighbors": LARGEST}),
    ("active_search", {"neighbors": LARGEST}),
    ("information_density", {"beta": 1e3}),
    ("information_density", {"beta": 0}),
    ("stochastic_top_k", {"beta": 1e6}),
    ("power_bald", {"beta": 1e-6}),
    *((name, {"clusters": 1}) for name in ("typiclust", "prob_cover", "cluster_margin")),
    *((name, {"neighbors": 1}) for name in ("typiclust", "graph_density", "cal", "active_search")),
]


def test_options_as_large_and_as_small_as_they_come_still_pick(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    train_on(client, "multiclass")
    for name, options in EXTREMES:
        check(pick(client, strategy_of(name, **options)))


def test_all_candidates_are_picked_where_the_batch_asks_for_more(serve: Serve, index: FakeIndex) -> None:
    client = serve(index)
    train_on(client, "multiclass")
    for name in ("k_center", "badge", "batch_bald", "typiclust", "entropy", "galaxy", "direct", "auto"):
        check(pick(client, strategy_of(name), batch_size=500), 120 - LABELLED)


class TestNames:
    @pytest.mark.parametrize("alias", ["MaxEnt", "prediction_entropy", "ENTROPY", ""])
    def test_an_alias_picks_what_the_strategy_does_and_the_answer_has_its_own_name(
        self, serve: Serve, index: FakeIndex, alias: str
    ) -> None:
        client = serve(index)
        train_on(client, "multiclass")
        own, other = pick(client, strategy_of("entropy")), pick(client, common_pb2.StrategySpec(name=alias))
        assert (other.ids, other.scores) == (own.ids, own.scores)
        assert other.strategy == "entropy"

    def test_a_base_may_be_an_alias_too(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        train_on(client, "multiclass")
        answers = [
            pick(client, common_pb2.StrategySpec(name=name, base=base)).ids
            for name, base in (("information_density", "margin"), ("DensityWeighted", "BreakingTies"))
        ]
        assert answers[0] == answers[1]


class TestWithoutModel:
    @pytest.mark.parametrize("count", [0, 4])
    def test_a_strategy_that_needs_none_picks_before_anything_was_trained(
        self, serve: Serve, index: FakeIndex, count: int
    ) -> None:
        client, restarted = serve(index), serve(index)
        for name in WITHOUT_MODEL:
            answer = pick_without_model(client, strategy_of(name), count)
            assert len(set(answer.ids)) == 10, name
            assert not set(answer.ids) & set(item_ids(range(count)))
            assert pick_without_model(restarted, strategy_of(name), count).ids == answer.ids, name

    def test_one_that_needs_a_model_is_refused_before_anything_is_told(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        for name in sorted(NAMES["multiclass"] - set(WITHOUT_MODEL)):
            with pytest.raises(InvalidArgument, match=f"{name} needs a model; without one: .*k_center") as refused:
                pick_without_model(client, strategy_of(name), 4)
            assert refused.value.field == "header.strategy.name"
        assert index.calls == []

    def test_the_task_and_its_classes_must_be_said(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        for changes, field in (({"classes": []}, "header.classes"), ({"task": 0}, "header.task")):
            with pytest.raises(InvalidArgument) as refused:
                pick_without_model(client, strategy_of("k_center"), **changes)
            assert refused.value.field == field

    def test_a_round_without_a_checkpoint_that_is_not_without_model_is_not_found(
        self, serve: Serve, index: FakeIndex
    ) -> None:
        with pytest.raises(NotFound, match="checkpoint"):
            pick(serve(index), strategy_of("k_center"))


class TestAuto:
    def test_it_tells_what_it_chose_and_why(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        before = pick_without_model(client, strategy_of("auto"))
        assert (before.strategy, before.strategy_reason) == ("typiclust", "typiclust: there is no model yet")
        assert before.ids == pick_without_model(client, strategy_of("typiclust")).ids
        train_on(client, "multiclass")
        answer = pick(client, strategy_of("auto"))
        assert answer.strategy in ("typiclust", "margin")
        assert answer.strategy_reason.startswith(f"{answer.strategy}: ")
        assert answer.ids == pick(client, strategy_of(answer.strategy)).ids
        few = select(client, range(6), strategy=strategy_of("auto"), policy=FULL)
        assert few.strategy == "typiclust"
        assert "6 labels" in few.strategy_reason

    def test_it_must_know_the_classes(self, serve: Serve, index: FakeIndex) -> None:
        client = serve(index)
        train_on(client, "multiclass")
        with pytest.raises(InvalidArgument) as refused:
            select(client, range(LABELLED), strategy=strategy_of("auto"), policy=FULL, classes=[])
        assert refused.value.field == "label_counts"

    def test_options_that_it_would_not_look_at_are_refused_before_anything_is_told(
        self, serve: Serve, index: FakeIndex
    ) -> None:
        client = serve(index)
        train_on(client, "multiclass")
        index.calls.clear()
        with pytest.raises(InvalidArgument) as refused:
            pick(client, strategy_of("auto", clusters=3))
        assert refused.value.field == "header.strategy.clusters"
        assert index.calls == []


@pytest.mark.parametrize("task", sorted(TASKS))
def test_growth_after_each_pick_is_refused_where_a_batch_is_picked_as_a_whole(
    serve: Serve, index: FakeIndex, task: str
) -> None:
    client = serve(index)
    train_on(client, task)
    index.calls.clear()
    policy = common_pb2.PolicySpec(k=5, growth=common_pb2.CANDIDATE_GROWTH_PICK)
    for name in sorted(name for name in NAMES[task] if not STRATEGIES[name].per_item):
        with pytest.raises(InvalidArgument, match=f"{name} picks a batch as a whole") as refused:
            pick(client, strategy_of(name, task), task, policy=policy)
        assert refused.value.field == "header.policy.growth"
    assert index.calls == []


@pytest.mark.parametrize("name", ["entropy", "cal", "bald", "information_density", "expected_gradient_length"])
def test_what_scores_item_by_item_goes_with_growth_after_each_pick(serve: Serve, index: FakeIndex, name: str) -> None:
    client = serve(index)
    train_on(client, "multiclass")
    policy = common_pb2.PolicySpec(k=2, growth=common_pb2.CANDIDATE_GROWTH_PICK)
    ids = check(pick(client, strategy_of(name), policy=policy, batch_size=40), 40)
    streamed = serve(index, candidate_cache_bytes=100)
    assert list(pick(streamed, strategy_of(name), policy=policy, batch_size=40).ids) == ids


@pytest.mark.parametrize("name", ["entropy", "information_density", "bald", "k_center", "badge", "batch_bald"])
@pytest.mark.parametrize("model", [DRAWS, WORDS], ids=["vectors", "texts"])
def test_candidates_deleted_while_they_are_streamed_are_left_out(
    serve: Serve, index: FakeIndex, name: str, model: common_pb2.ModelSpec
) -> None:
    client = serve(index, candidate_cache_bytes=100, batch_rows=16)
    train_on(client, "multiclass", model)
    lost = item_ids(range(LABELLED, 120, 4))
    get_items, reads = index.get_items, []

    def losing(*arguments: object, **options: object) -> object:
        reads.append(arguments)
        if len(reads) == 4:  # after the labelled items and some of the candidates
            for item_id in lost:
                index.delete(item_id)
        return get_items(*arguments, **options)  # type: ignore[arg-type]

    index.get_items = losing  # type: ignore[method-assign, assignment]
    ids = check(pick(client, strategy_of(name)))
    assert len(reads) > 4
    assert not set(ids) & set(lost)
    assert list(pick(client, strategy_of(name)).ids) == ids
    everything: Sequence[str] = pick(client, strategy_of(name), batch_size=200).ids
    assert set(everything) == set(item_ids(range(LABELLED, 120))) - set(lost)


def test_labels_that_the_strategy_looks_at_and_the_task_does_not_allow_are_refused(
    serve: Serve, index: FakeIndex
) -> None:
    client = serve(index)
    train(client)
    for classes in ([[7]] * 9, [[0, 1]] * 9, [[]] * 9):
        with pytest.raises(InvalidArgument):
            select(client, range(9), classes=classes, strategy=strategy_of("galaxy"), policy=FULL)
