"""The tables. A change here needs a migration; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
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
    labels: Mapped[int]
    picks: Mapped[int] = mapped_column(default=0)
    candidates: Mapped[bytes | None] = mapped_column(LargeBinary)  # CandidatePoolInfo
    quality: Mapped[bytes | None] = mapped_column(LargeBinary)  # Quality
    seconds: Mapped[bytes] = mapped_column(LargeBinary, default=b"")  # PhaseSeconds
    strategy: Mapped[str] = mapped_column(Text, default="")  # the one that picked
    strategy_reason: Mapped[str] = mapped_column(Text, default="")  # why another picked than the campaign's own
    notes: Mapped[list[str]] = mapped_column(JSON, default=list)  # of the training
    error: Mapped[str] = mapped_column(Text, default="")
    pool_version: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Task(Base):
    """An item handed out, or waiting to be: once a campaign."""

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("campaign_id", "item_id"),
        ForeignKeyConstraint(["campaign_id", "round"], ["rounds.campaign_id", "rounds.number"]),
        Index(None, "campaign_id", "state", "round", "rank"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(Key)
    item_id: Mapped[str] = mapped_column(Text)
    round: Mapped[int]
    rank: Mapped[int]  # 0 is the most wanted of its round
    score: Mapped[float]
    origin: Mapped[int]  # PickOrigin
    state: Mapped[str] = mapped_column(String(16))
    annotator: Mapped[str] = mapped_column(String(128), default="")
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Label(Base):
    """A label as it was handed in. Rows are only ever added; a trigger refuses anything else."""

    __tablename__ = "labels"
    __table_args__ = (
        Index(None, "campaign_id", "held_out", "sequence"),
        Index(None, "campaign_id", "held_out", "item_id", "sequence"),
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
    held_out: Mapped[bool]
    committed_at: Mapped[datetime] = mapped_column(UtcDateTime)


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
