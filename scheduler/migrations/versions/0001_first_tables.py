"""First tables: campaigns, rounds, tasks, labels, requests, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("labelled", sa.Integer, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("held_out_loaded", sa.Boolean, nullable=False),
        sa.Column("drop_pending", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_campaigns"),
        sa.UniqueConstraint("name", name="uq_campaigns_name"),
    )
    op.create_table(
        "rounds",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("snapshot", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.Integer, nullable=False),
        sa.Column("labels", sa.Integer, nullable=False),
        sa.Column("picks", sa.Integer, nullable=False),
        sa.Column("candidates", sa.LargeBinary),
        sa.Column("quality", sa.LargeBinary),
        sa.Column("seconds", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("pool_version", sa.BigInteger, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.PrimaryKeyConstraint("campaign_id", "number", name="pk_rounds"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_rounds_campaign_id_campaigns"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("origin", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("annotator", sa.String(128), nullable=False),
        sa.Column("lease_expires_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("campaign_id", "item_id", name="uq_tasks_campaign_id_item_id"),
        sa.ForeignKeyConstraint(
            ["campaign_id", "round"], ["rounds.campaign_id", "rounds.number"], name="fk_tasks_campaign_id_round_rounds"
        ),
    )
    op.create_index("ix_tasks_campaign_id_state_round_rank", "tasks", ["campaign_id", "state", "round", "rank"])
    op.create_table(
        "labels",
        sa.Column("sequence", _KEY, nullable=False),
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("classes", sa.JSON, nullable=False),
        sa.Column("annotator", sa.String(128), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("unsolicited", sa.Boolean, nullable=False),
        sa.Column("corrects", sa.Boolean, nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_labels"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_labels_campaign_id_campaigns"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_labels_campaign_id_held_out_sequence", "labels", ["campaign_id", "held_out", "sequence"])
    op.create_index(
        "ix_labels_campaign_id_held_out_item_id_sequence", "labels", ["campaign_id", "held_out", "item_id", "sequence"]
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_created_at", "requests", ["created_at"])
    op.create_table(
        "events",
        sa.Column("sequence", _KEY, nullable=False),
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_events"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_events_campaign_id_campaigns"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_campaign_id_sequence", "events", ["campaign_id", "sequence"])
    _make_labels_append_only()


def downgrade() -> None:
    for table in ("events", "requests", "labels", "tasks", "rounds", "campaigns"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION labels_are_append_only()")


def _make_labels_append_only() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION labels_are_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'labels are append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER labels_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON labels "
            "FOR EACH STATEMENT EXECUTE FUNCTION labels_are_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER labels_refuse_{change.lower()} BEFORE {change} ON labels "
            "BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END"
        )
