"""Growth after each pick gives what asking and scoring everything anew after every pick would, and asks less."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from learner.candidates import Candidates
from learner.device import Mirror
from learner.expansion import HeldCampaign
from learner.growing import GrownBatch, Preview, pick_growing
from learner.models import make_classifier
from learner.options import ModelOptions, StrategyOptions
from learner.ports import BatchStrategy
from learner.problem import Problem, Task
from learner.scoring import ScoredItem, Scorer
from learner.sources import CandidateSource
from learner.strategies import make_strategy
from sealpool.errors import Cancelled, Unavailable
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2
from tests.support.candidate_sources import lens_of
from tests.support.fake_index import FakeIndex, FakeUpdate

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
SEALS = common_pb2.PolicySpec(name="seals", k=6)


def never() -> bool:
    return False


@pytest.fixture(params=[0, 1, 2])
def index(request: pytest.FixtureRequest) -> FakeIndex:
    """200 items, a third of them one and the same: only draws tell those apart."""
    vectors = np.random.default_rng(request.param).normal(size=(200, 4))
    vectors[::3] = vectors[0]
    return FakeIndex({f"item-{number:03}": row.tolist() for number, row in enumerate(vectors)})


def held_of(index: FakeIndex, labelled: Sequence[str] = ("item-001", "item-002")) -> HeldCampaign:
    held = HeldCampaign(0, Mirror(CPU, limit_bytes=0), Candidates())
    held.candidates.apply(index.expand_candidates("pool", "c", labelled, policy=SEALS))
    return held


def scorer_of(held: HeldCampaign, name: str = "entropy") -> Scorer:
    model = make_classifier(ModelOptions(), PROBLEM)
    weights = np.random.default_rng(9).normal(size=(4, 3)).astype(np.float32)
    model.load({"weights": weights, "bias": np.zeros(3, np.float32)}, device=CPU)
    strategy = make_strategy(StrategyOptions(name=name), PROBLEM)
    assert not isinstance(strategy, BatchStrategy)
    direction = held.candidates.direction if strategy.density_over else None
    return Scorer(lens=lens_of(PROBLEM, model, direction=direction), strategy=strategy, batch_rows=64)


def source_at(candidates: Candidates) -> CandidateSource:
    def read(ids: Sequence[ItemId]) -> Items:
        raise AssertionError(f"{ids} are held")

    return CandidateSource(candidates=candidates, mirror=Mirror(CPU, limit_bytes=0), read=read, device=CPU)


def preview_of(index: FakeIndex) -> Preview:
    def preview(item_id: ItemId) -> FakeUpdate:
        return index.expand_candidates("pool", "c", [item_id], policy=SEALS, held_version=1, preview=True)

    return preview


def grow(index: FakeIndex, held: HeldCampaign, scorer: Scorer, **changes: object) -> GrownBatch:
    values = {"count": 25, "barred": {"item-001", "item-002"}, "cancelled": never, "clock": lambda: 0.0, **changes}
    preview = values.pop("preview", None) or preview_of(index)
    return pick_growing(source_at(held.candidates), scorer, preview, **values)  # type: ignore[arg-type]


def one_after_the_other(
    index: FakeIndex, held: HeldCampaign, scorer: Scorer, *, count: int, barred: set[str]
) -> list[ScoredItem]:
    """Grow a plain dictionary, and rate everything in it before each pick."""
    slots = range(len(held.candidates))
    grown = {held.candidates.id_at(slot): held.candidates.vectors[slot].tolist() for slot in slots}  # type: ignore[arg-type]
    picks: list[ScoredItem] = []
    while len(picks) < count:
        left = sorted(grown.keys() - barred - {item.id for item in picks})
        if not left:
            break
        everything = Candidates()
        everything.apply(FakeIndex({i: grown[i] for i in left}).expand_candidates("pool", "o", [], policy=FULL))
        picks.append(
            min(scorer.rate(source_at(everything), everything.slots_of(left), cancelled=never), key=lambda i: i.rank)
        )
        brought = preview_of(index)(picks[-1].id).added
        grown |= dict(zip(brought.ids, brought.vectors.tolist(), strict=True))
    return sorted(picks, key=lambda item: item.rank)


FULL = common_pb2.PolicySpec(name="full")


@pytest.mark.parametrize("name", ["entropy", "information_density", "random"])
def test_the_picks_are_those_of_growing_and_rating_everything_after_each(index: FakeIndex, name: str) -> None:
    held = held_of(index)
    scorer = scorer_of(held, name)
    barred = {"item-001", "item-002", "item-004", "item-006"}
    expected = one_after_the_other(index, held, scorer, count=25, barred=barred)
    assert len(expected) == 25
    assert grow(index, held, scorer, barred=barred).items == expected
    at_the_start = {held.candidates.id_at(slot) for slot in range(len(held.candidates))}  # type: ignore[arg-type]
    assert {item.id for item in expected} - at_the_start


def test_nothing_is_kept_and_a_repeated_selection_is_the_same(index: FakeIndex) -> None:
    held = held_of(index)
    scorer = scorer_of(held)
    before = (held.candidates.version, len(held.candidates), held.candidates.direction.tolist())
    first = grow(index, held, scorer)
    assert grow(index, held, scorer).items == first.items
    assert (held.candidates.version, len(held.candidates), held.candidates.direction.tolist()) == before
    assert len(index.campaigns["c"].versions) == 2  # none, and the one that held_of made


def test_each_pick_but_the_last_is_asked_for_once_and_few_others(index: FakeIndex) -> None:
    held = held_of(index)
    picks = grow(index, held, scorer_of(held)).items
    asked = [ids[0] for call, ids in index.calls if call == "preview"]
    assert len(asked) == len(set(asked)) < 25 + 8
    assert len({item.id for item in picks} - set(asked)) <= 1
    index.calls.clear()
    assert len(grow(index, held, scorer_of(held), count=1).items) == 1
    assert grow(index, held, scorer_of(held), count=0).items == []
    assert index.calls == []


def test_what_is_barred_is_not_picked_when_a_pick_brings_it(index: FakeIndex) -> None:
    held = held_of(index)
    scorer = scorer_of(held)
    at_the_start = {held.candidates.id_at(slot) for slot in range(len(held.candidates))}  # type: ignore[arg-type]
    brought = {item.id for item in grow(index, held, scorer).items} - at_the_start
    again = grow(index, held, scorer, barred={"item-001", "item-002"} | brought)
    assert brought
    assert not brought & {item.id for item in again.items}


def test_a_pick_that_the_pool_lost_meanwhile_brings_nothing(index: FakeIndex) -> None:
    held = held_of(index)
    best = grow(index, held, scorer_of(held), count=1).items[0].id
    index.delete(best)
    picks = grow(index, held, scorer_of(held)).items
    assert best in {item.id for item in picks}
    assert len(picks) == 25


def test_a_small_pool_is_picked_empty(index: FakeIndex) -> None:
    small = FakeIndex({f"item-{number:03}": [number, 1, 0, 0] for number in range(12)})
    held = held_of(small)
    assert len(grow(small, held, scorer_of(held)).items) == 10


@pytest.mark.parametrize(
    ("changes", "error"), [({"cancelled": lambda: True}, Cancelled), ({"preview": "away"}, Unavailable)]
)
def test_who_left_and_an_index_server_that_is_away_end_it(
    index: FakeIndex, changes: dict[str, object], error: type[Exception]
) -> None:
    def away(item_id: ItemId) -> FakeUpdate:
        raise Unavailable(f"no answer for {item_id}")

    held = held_of(index)
    preview: Callable[[ItemId], FakeUpdate] | None = away if "preview" in changes else None
    with pytest.raises(error):
        grow(index, held, scorer_of(held), **(changes | {"preview": preview}))
