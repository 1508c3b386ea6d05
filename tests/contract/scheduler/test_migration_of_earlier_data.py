"""What an earlier version wrote means the same after the migration."""

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from scheduler.domain.answers import Answer
from scheduler.domain.states import Audience, LabelPurpose
from scheduler.labelling import commit_answers
from scheduler.storage import annotations, campaigns, labels, tasks
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import alembic_config, migrate
from scheduler.storage.store import Store
from sealpool.types import ItemId
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import DATASET, make_spec


def test_tasks_and_labels_of_the_version_before_come_through_the_migration(database_url: str, clock: FakeClock) -> None:
    old = Store(open_engine(database_url, connections=2), clock=clock)
    with old.writing_engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")
        for key, spec in ((1, make_spec(name="people")), (2, make_spec(name="own", oracle=DATASET))):
            connection.execute(
                text(
                    "INSERT INTO campaigns (id, name, spec, state, created_at, labelled, last_sequence, "
                    "held_out_loaded, drop_pending) VALUES (:key, :name, :spec, 'active', '2026-01-01', 2, 4, :no, :no)"
                ),
                {"key": key, "name": spec.name, "spec": spec.SerializeToString(), "no": False},
            )
            connection.execute(
                text(
                    "INSERT INTO rounds (campaign_id, number, kind, state, snapshot, batch, labels, picks, seconds, "
                    "error, pool_version, started_at) VALUES (:key, 0, 'seed', 'labelling', 0, 3, 0, 3, :nothing, '', "
                    "0, '2026-01-01')"
                ),
                {"key": key, "nothing": b""},
            )
            for rank, state in enumerate(("closed", "closed", "open")):
                connection.execute(
                    text(
                        "INSERT INTO tasks (campaign_id, item_id, round, rank, score, origin, state, annotator) "
                        "VALUES (:key, :item, 0, :rank, 0, 1, :state, '')"
                    ),
                    {"key": key, "item": f"i{rank}", "rank": rank, "state": state},
                )
            for item, label, held_out, corrects in (
                ("i0", "[0]", False, False),
                ("h", "[1]", True, False),
                ("i1", "[1]", False, False),
                ("i0", "[1]", False, True),
            ):
                connection.execute(
                    text(
                        "INSERT INTO labels (campaign_id, item_id, classes, annotator, round, unsolicited, corrects, "
                        "held_out, committed_at) VALUES (:key, :item, :label, 'a', 0, :no, :corrects, :held_out, "
                        "'2026-01-01')"
                    ),
                    {
                        "key": key,
                        "item": item,
                        "label": label,
                        "no": False,
                        "corrects": corrects,
                        "held_out": held_out,
                    },
                )
    migrate(old)
    with old.writing() as session:
        people, own = (campaigns.lock(session, name) for name in ("people", "own"))
        for campaign, audience in ((people, Audience.PEOPLE), (own, Audience.ORACLE)):
            assert tasks.outstanding(session, campaign.id, audience=audience) == ["i2"]
            found = labels.effective(session, campaign.id, purpose=LabelPurpose.TRAINING, until=2**40)
            assert found == {"i1": (1,), "i0": (1,)}
            assert labels.known_items(session, campaign.id, [ItemId("h")], purpose=LabelPurpose.EVALUATION) == {"h"}
            said = annotations.opinions(session, campaign.id, [ItemId("i0")], purposes=(LabelPurpose.TRAINING,))
            assert said[ItemId("i0")]["a"].classes == (1,)
        answer = Answer(item_id=ItemId("i2"), classes=(0,))
        done = commit_answers(session, people, [answer], annotator="b", purpose=None, now=clock.now())
        assert (done.accepted, done.unsolicited) == (1, 0)
        assert (people.labelled, tasks.outstanding(session, people.id)) == (3, [])
    for table in ("labels", "annotations"):
        with old.writing_engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(f"UPDATE {table} SET annotator = 'other'"))
    old.close()
