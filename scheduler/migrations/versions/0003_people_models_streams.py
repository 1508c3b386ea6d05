"""Annotations, purposes of tasks, language models, streams, Label Studio, evaluation in the pool, leadership."""

import sqlalchemy as sa
from alembic import op

from sealpool.v1 import scheduler_pb2

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("campaigns", sa.Column("evaluation_labelled", sa.Integer, nullable=False, server_default="0"))
    op.add_column("campaigns", sa.Column("state_reason", sa.Text, nullable=False, server_default=""))
    op.add_column("rounds", sa.Column("spec", sa.LargeBinary))
    op.add_column("rounds", sa.Column("class_counts", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("rounds", sa.Column("origin_counts", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("rounds", sa.Column("survey", sa.LargeBinary))
    op.add_column("rounds", sa.Column("survey_classes", sa.LargeBinary))
    op.add_column("rounds", sa.Column("active_test", sa.LargeBinary))
    _change_tasks()
    _change_labels()
    _create_annotations()
    _create_drawn()
    _create_llm_answers()
    _create_streams()
    _create_label_studio()
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leadership"),
    )


def downgrade() -> None:
    raise NotImplementedError("labels for audits and several annotations an item have no place in the tables before")


def _change_tasks() -> None:
    # SQLite cannot drop a constraint: there the table is written anew.
    with op.batch_alter_table("tasks") as tasks:
        tasks.add_column(sa.Column("purpose", sa.String(16), nullable=False, server_default="training"))
        tasks.add_column(sa.Column("slot", sa.Integer, nullable=False, server_default="0"))
        tasks.add_column(sa.Column("audience", sa.String(16), nullable=False, server_default="people"))
        tasks.drop_constraint("uq_tasks_campaign_id_item_id", type_="unique")
        # Tasks of audits and reviews belong to no round.
        tasks.drop_constraint("fk_tasks_campaign_id_round_rounds", type_="foreignkey")
        tasks.create_unique_constraint(
            "uq_tasks_campaign_id_item_id_purpose_slot", ["campaign_id", "item_id", "purpose", "slot"]
        )
        tasks.create_foreign_key("fk_tasks_campaign_id_campaigns", "campaigns", ["campaign_id"], ["id"])
    # In the order in which tasks are handed out: without the slot PostgreSQL sorts all that is open.
    op.drop_index("ix_tasks_campaign_id_state_round_rank", "tasks")
    columns = ["campaign_id", "state", "round", "rank", "slot"]
    op.create_index("ix_tasks_campaign_id_state_round_rank_slot", "tasks", columns)
    _leave_tasks_to_the_data_set()


def _leave_tasks_to_the_data_set() -> None:
    """Let those tasks wait for the data-set oracle that it had not labelled yet: its round may go on after this."""
    connection = op.get_bind()
    for key, spec in connection.execute(sa.text("SELECT id, spec FROM campaigns")).all():
        if scheduler_pb2.CampaignSpec.FromString(bytes(spec)).oracle.name == "dataset":
            connection.execute(
                sa.text("UPDATE tasks SET audience = 'oracle' WHERE campaign_id = :key AND state = 'open'"),
                {"key": key},
            )


def _change_labels() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:
        op.execute("ALTER TABLE labels DISABLE TRIGGER labels_append_only")
    else:
        op.execute("DROP TRIGGER labels_refuse_update")
    op.add_column("labels", sa.Column("purpose", sa.String(16), nullable=False, server_default="training"))
    op.execute("UPDATE labels SET purpose = 'evaluation' WHERE held_out")
    op.drop_index("ix_labels_campaign_id_held_out_sequence", "labels")
    op.drop_index("ix_labels_campaign_id_held_out_item_id_sequence", "labels")
    op.drop_column("labels", "held_out")
    op.create_index("ix_labels_campaign_id_purpose_sequence", "labels", ["campaign_id", "purpose", "sequence"])
    op.create_index(
        "ix_labels_campaign_id_purpose_item_id_sequence", "labels", ["campaign_id", "purpose", "item_id", "sequence"]
    )
    if is_postgresql:
        op.execute("ALTER TABLE labels ENABLE TRIGGER labels_append_only")
    else:
        _refuse_on_sqlite("labels", "UPDATE")


def _create_annotations() -> None:
    op.create_table(
        "annotations",
        sa.Column("sequence", _KEY, nullable=False),
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("annotator", sa.String(128), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("classes", sa.JSON, nullable=False),
        sa.Column("confidence", sa.Double),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_annotations"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_annotations_campaign_id_campaigns"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_annotations_campaign_id_sequence", "annotations", ["campaign_id", "sequence"])
    op.create_index(
        "ix_annotations_campaign_id_item_id_annotator", "annotations", ["campaign_id", "item_id", "annotator"]
    )
    # What was handed in before is what its annotator said.
    op.execute(
        "INSERT INTO annotations (campaign_id, item_id, annotator, outcome, classes, comment, purpose, round, "
        "committed_at) SELECT campaign_id, item_id, annotator, 'label', classes, '', purpose, round, committed_at "
        "FROM labels ORDER BY sequence"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER annotations_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON annotations "
            "FOR EACH STATEMENT EXECUTE FUNCTION labels_are_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        _refuse_on_sqlite("annotations", change)


def _refuse_on_sqlite(table: str, change: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
    )


def _create_drawn() -> None:
    op.create_table(
        "drawn_items",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "kind", "position", name="pk_drawn_items"),
        sa.UniqueConstraint("campaign_id", "kind", "item_id", name="uq_drawn_items_campaign_id_kind_item_id"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_drawn_items_campaign_id_campaigns"),
    )
    op.create_table(
        "test_points",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("probability", sa.Double, nullable=False),
        sa.Column("pool", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "position", name="pk_test_points"),
        sa.UniqueConstraint("campaign_id", "item_id", name="uq_test_points_campaign_id_item_id"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_test_points_campaign_id_campaigns"),
    )


def _create_llm_answers() -> None:
    op.create_table(
        "llm_answers",
        sa.Column("prompt_hash", sa.String(64), nullable=False),
        sa.Column("sample", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("endpoint", sa.String(128), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("tokens_in", sa.Integer, nullable=False),
        sa.Column("tokens_out", sa.Integer, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("answered_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("prompt_hash", "sample", "campaign_id", name="pk_llm_answers"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_llm_answers_campaign_id_campaigns"),
    )
    op.create_index("ix_llm_answers_campaign_id_item_id", "llm_answers", ["campaign_id", "item_id"])


def _create_streams() -> None:
    op.create_table(
        "streams",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("asked", sa.BigInteger, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", name="pk_streams"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_streams_campaign_id_campaigns"),
    )
    op.create_table(
        "stream_decisions",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("decision", sa.LargeBinary, nullable=False),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "item_id", name="pk_stream_decisions"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_stream_decisions_campaign_id_campaigns"),
    )
    op.create_index("ix_stream_decisions_decided_at", "stream_decisions", ["decided_at"])
    op.create_table(
        "synthetic_items",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("item", sa.LargeBinary, nullable=False),
        sa.Column("real", sa.Boolean, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "item_id", name="pk_synthetic_items"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_synthetic_items_campaign_id_campaigns"),
    )


def _create_label_studio() -> None:
    op.create_table(
        "label_studio_links",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("link", sa.LargeBinary, nullable=False),
        sa.Column("webhook_url", sa.Text, nullable=False),
        sa.Column("webhook_secret", sa.String(64), nullable=False),
        sa.Column("webhook_id", sa.Integer),
        sa.Column("polled_until", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", name="pk_label_studio_links"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_label_studio_links_campaign_id_campaigns"),
    )
    op.create_table(
        "label_studio_tasks",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("their_id", sa.Integer, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "item_id", name="pk_label_studio_tasks"),
        sa.UniqueConstraint("campaign_id", "their_id", name="uq_label_studio_tasks_campaign_id_their_id"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name="fk_label_studio_tasks_campaign_id_campaigns"),
    )
    op.create_table(
        "label_studio_annotations",
        sa.Column("campaign_id", _KEY, nullable=False),
        sa.Column("their_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "their_id", "version", name="pk_label_studio_annotations"),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_label_studio_annotations_campaign_id_campaigns"
        ),
    )
