"""The label log against a dictionary: an item's effective label is its last, at any sequence."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose
from scheduler.labelling import commit_answers
from scheduler.storage import campaigns, labels
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from sealpool.types import ItemId
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec

ITEMS = st.sampled_from([ItemId(f"i{i}") for i in range(6)])
PURPOSES = st.sampled_from([LabelPurpose.TRAINING, LabelPurpose.EVALUATION])
CALLS = st.lists(st.tuples(PURPOSES, st.dictionaries(ITEMS, st.tuples(st.integers(0, 1)), min_size=1)), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS)
def test_the_effective_labels_are_the_last_of_each_item(tmp_path: Path, calls: list) -> None:  # type: ignore[type-arg]
    store = Store(open_engine(f"sqlite:///{tmp_path / 'log.db'}", connections=2), clock=FakeClock())
    migrate(store)
    with store.writing() as session:
        name = f"c{len(campaigns.all_by_name(session, include_archived=True))}"
        campaign = campaigns.add(
            session, make_spec(name=name, budget=100, evaluation_pool="held-out"), now=store.clock.now()
        )
    expected: dict[LabelPurpose, dict[ItemId, tuple[int, ...]]] = {
        LabelPurpose.TRAINING: {},
        LabelPurpose.EVALUATION: {},
    }
    history = []
    for purpose, given_labels in calls:
        with store.writing() as session:
            locked = campaigns.lock(session, name)
            answers = [Answer(item_id=item, classes=classes) for item, classes in given_labels.items()]
            done = commit_answers(session, locked, answers, annotator="x", purpose=purpose, now=store.clock.now())
        assert done.corrections == len(expected[purpose].keys() & given_labels.keys())
        expected[purpose].update(given_labels)
        history.append((locked.last_sequence, {kind: dict(known) for kind, known in expected.items()}))
        assert locked.labelled == len(expected[LabelPurpose.TRAINING])
    with store.reading() as session:
        for sequence, known in history:
            for purpose, effective in known.items():
                found = labels.effective(session, campaign.id, purpose=purpose, until=sequence)
                assert found == effective
                listed = labels.page(
                    session,
                    campaign.id,
                    purpose=purpose,
                    only_effective=True,
                    after=0,
                    until=sequence,
                    limit=100,
                )
                assert {row.item_id: tuple(row.classes) for row in listed} == effective
                assert list(found) == [row.item_id for row in listed]
    store.close()
