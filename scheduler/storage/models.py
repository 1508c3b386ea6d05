"""The tables. A change here needs a migration; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime, TypeDecorator

# SQLite gives numbers by itself only to a primary key that is declared INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite drops the zone; it comes back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn to UTC; a naive time is a fault of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        return value if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


class Base(DeclarativeBase):
    """All tables of the scheduler."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Campaign(Base):
    """A campaign. Whoever changes anything of it locks this row first: see `storage.campaigns`."""

    __tablename__ = "campaigns"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    spec: Mapped[bytes] = mapped_column(LargeBinary)  # CampaignSpec
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    labelled: Mapped[int] = mapped_column(default=0)  # distinct items, held-out ones not counted
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)  # of the latest label committed
    # In-pool items labelled for evaluation: they cost budget, as `labelled` does.
    evaluation_labelled: Mapped[int] = mapped_column(default=0)
    state_reason: Mapped[str] = mapped_column(Text, default="")  # why it is paused or completed, if nobody asked
    held_out_loaded: Mapped[bool] = mapped_column(default=False)  # by the campaign's own oracle
    drop_pending: Mapped[bool] = mapped_column(default=False)  # archived; the index server is still to be told


class Round(Base):
    """A round. `snapshot` is the label sequence it began at: everything in it follows from the labels up to there."""

    __tablename__ = "rounds"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    snapshot: Mapped[int] = mapped_column(BigInteger)
    batch: Mapped[int]  # items it may hand out
    # CampaignSpec as the round began with it, where the campaign's has changed since.
    spec: Mapped[bytes | None] = mapped_column(LargeBinary)
    labels: Mapped[int]
    picks: Mapped[int] = mapped_column(default=0)
    candidates: Mapped[bytes | None] = mapped_column(LargeBinary)  # CandidatePoolInfo
    quality: Mapped[bytes | None] = mapped_column(LargeBinary)  # Quality
    seconds: Mapped[bytes] = mapped_column(LargeBinary, default=b"")  # PhaseSeconds
    strategy: Mapped[str] = mapped_column(Text, default="")  # the one that picked
    strategy_reason: Mapped[str] = mapped_column(Text, default="")  # why another picked than the campaign's own
    notes: Mapped[list[str]] = mapped_column(JSON, default=list)  # of the training
    class_counts: Mapped[list[int]] = mapped_column(JSON, default=list)  # labelled items with each class
    origin_counts: Mapped[list[int]] = mapped_column(JSON, default=list)  # picks by PickOrigin
    survey: Mapped[bytes | None] = mapped_column(LargeBinary)  # Survey
    # What the model says of the stop set, in its order: class indices, or a bit a label; numpy's uint16 or packed bits.
    survey_classes: Mapped[bytes | None] = mapped_column(LargeBinary)
    active_test: Mapped[bytes | None] = mapped_column(LargeBinary)  # ActiveTest
    error: Mapped[str] = mapped_column(Text, default="")
    pool_version: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Task(Base):
    """One annotation that is wanted of an item. An item has as many tasks of a purpose as annotations are wanted.

    A withdrawn task is taken up again when its item is picked again.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("campaign_id", "item_id", "purpose", "slot"),
        Index(None, "campaign_id", "state", "round", "rank", "slot"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"))
    item_id: Mapped[str] = mapped_column(Text)
    round: Mapped[int]
    rank: Mapped[int]  # 0 is the most wanted of its round
    score: Mapped[float]
    origin: Mapped[int]  # PickOrigin
    purpose: Mapped[str] = mapped_column(String(16))  # LabelPurpose
    slot: Mapped[int] = mapped_column(default=0)  # which of the annotations that are wanted
    audience: Mapped[str] = mapped_column(String(16))  # Audience
    state: Mapped[str] = mapped_column(String(16))
    annotator: Mapped[str] = mapped_column(String(128), default="")
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Label(Base):
    """What the campaign takes as true of an item. Rows are only ever added; a trigger refuses anything else."""

    __tablename__ = "labels"
    __table_args__ = (
        Index(None, "campaign_id", "purpose", "sequence"),
        Index(None, "campaign_id", "purpose", "item_id", "sequence"),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(Key, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"))
    item_id: Mapped[str] = mapped_column(Text)
    classes: Mapped[list[int]] = mapped_column(JSON)  # indices into the campaign's classes
    annotator: Mapped[str] = mapped_column(String(128))
    round: Mapped[int]  # whose task it answers; 0 if unsolicited
    unsolicited: Mapped[bool]
    corrects: Mapped[bool]
    purpose: Mapped[str] = mapped_column(String(16))  # LabelPurpose
    committed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Annotation(Base):
    """What one annotator said of one item. Rows are only ever added; a trigger refuses anything else."""

    __tablename__ = "annotations"
    __table_args__ = (
        Index(None, "campaign_id", "sequence"),
        Index(None, "campaign_id", "item_id", "annotator"),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(Key, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"))
    item_id: Mapped[str] = mapped_column(Text)
    annotator: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[str] = mapped_column(String(16))  # Outcome
    classes: Mapped[list[int]] = mapped_column(JSON)  # indices into the campaign's classes
    confidence: Mapped[float | None]
    comment: Mapped[str] = mapped_column(Text, default="")
    purpose: Mapped[str] = mapped_column(String(16))  # LabelPurpose
    round: Mapped[int]  # whose task it answers; 0 if unsolicited
    committed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DrawnItem(Base):
    """An item that a campaign drew and remembers: its held-out items, test pool, stop set."""

    __tablename__ = "drawn_items"
    __table_args__ = (UniqueConstraint("campaign_id", "kind", "item_id"),)

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # DrawKind
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[str] = mapped_column(Text)


class ActiveTestPoint(Base):
    """An item that active testing chose, in the order chosen, with the probability it was chosen with."""

    __tablename__ = "test_points"
    __table_args__ = (UniqueConstraint("campaign_id", "item_id"),)

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[str] = mapped_column(Text)
    round: Mapped[int]
    probability: Mapped[float]
    pool: Mapped[int]  # items of the test pool


class LlmAnswer(Base):
    """What a language model was asked and answered: kept, so that nothing is paid for twice."""

    __tablename__ = "llm_answers"
    __table_args__ = (Index(None, "campaign_id", "item_id"),)

    prompt_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # of endpoint, model, settings and messages
    sample: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(String(128))
    model: Mapped[str] = mapped_column(String(256))
    answer: Mapped[str] = mapped_column(Text)
    problem: Mapped[str] = mapped_column(Text, default="")  # what was wrong with it; "" for a valid one
    tokens_in: Mapped[int]
    tokens_out: Mapped[int]
    cost: Mapped[float]
    answered_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Stream(Base):
    """Where a campaign's stream stands."""

    __tablename__ = "streams"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    seen: Mapped[int] = mapped_column(BigInteger, default=0)
    asked: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[dict[str, object]] = mapped_column(JSON)  # of the threshold and the drift detector


class StreamDecision(Base):
    """What was decided of an item of a stream."""

    __tablename__ = "stream_decisions"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(Text, primary_key=True)
    decision: Mapped[bytes] = mapped_column(LargeBinary)  # StreamDecision
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SyntheticItem(Base):
    """An item that was made, or found by synthesis, and from what."""

    __tablename__ = "synthetic_items"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(Text, primary_key=True)
    item: Mapped[bytes] = mapped_column(LargeBinary)  # SyntheticItem
    real: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelStudioLink(Base):
    """A campaign's project in Label Studio."""

    __tablename__ = "label_studio_links"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    link: Mapped[bytes] = mapped_column(LargeBinary)  # LabelStudioLink
    webhook_url: Mapped[str] = mapped_column(Text)
    webhook_secret: Mapped[str] = mapped_column(String(64))
    webhook_id: Mapped[int | None]
    # Annotations changed after this, as Label Studio tells time, are still to be looked at.
    polled_until: Mapped[str] = mapped_column(String(64), default="")


class LabelStudioTask(Base):
    """A task of ours in Label Studio."""

    __tablename__ = "label_studio_tasks"
    __table_args__ = (UniqueConstraint("campaign_id", "their_id"),)

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(Text, primary_key=True)
    their_id: Mapped[int]
    open: Mapped[bool]


class LabelStudioAnnotation(Base):
    """A version of an annotation that was taken from Label Studio: it counts once, however it came."""

    __tablename__ = "label_studio_annotations"

    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"), primary_key=True)
    their_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)  # when it was changed, as Label Studio tells it


class Leadership(Base):
    """Who leads the schedulers of this database: one row. A phase commits only under the epoch it began in."""

    __tablename__ = "leadership"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class Request(Base):
    """A mutating call that took effect, and what it was answered."""

    __tablename__ = "requests"

    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Event(Base):
    """Something that happened, written in the transaction in which it did."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "campaign_id", "sequence"), {"sqlite_autoincrement": True})

    sequence: Mapped[int] = mapped_column(Key, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(Key, ForeignKey("campaigns.id"))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    body: Mapped[bytes] = mapped_column(LargeBinary)  # WatchCampaignResponse, without sequence and time
