"""What the scheduler can be told."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from sealpool.runtime.settings import CallingServiceSettings


class SchedulerSettings(CallingServiceSettings):
    """The scheduler: campaigns, rounds, tasks and labels."""

    model_config = SettingsConfigDict(env_prefix="SEALPOOL_SCHEDULER_")

    listen: str = Field("127.0.0.1:7303", description="host:port of the gRPC server; port 0 takes a free one.")
    metrics_listen: str = Field(
        "127.0.0.1:7313", description='host:port where Prometheus scrapes /metrics over HTTP; "" turns it off.'
    )
    http_listen: str = Field(
        "127.0.0.1:7323",
        description="host:port of the HTTP/JSON front, for browsers and webhooks; its documentation is at /docs. "
        '"" turns it off; port 0 takes a free one, which the log names. Beyond loopback it needs what listen needs.',
    )
    http_cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose pages may call the HTTP front from a browser, such as https://labels.example.org; * "
        "for all, which without tokens lets any page that somebody opens change campaigns.",
    )
    http_heartbeat_s: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Seconds of silence after which a stream of server-sent events says that it is there. Below the "
        "shortest time after which a proxy on the way closes what is silent.",
    )
    data_dir: Path = Field(
        Path(".sealpool/scheduler"), description="Where the SQLite database lies, unless database_url names another."
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description='Where campaigns and labels are kept. "" is SQLite in data_dir: nothing to run, one machine. '
        "postgresql+psycopg://user:password@host/name for a deployment: backups, replicas, more labels a second.",
    )
    database_connections: int = Field(
        16,
        ge=2,
        le=1024,
        description="Connections to the database at most. A call that finds none free waits up to 30 s. Raise it where "
        "many annotators work at once; PostgreSQL's max_connections bounds it.",
    )
    index_server: str = Field("127.0.0.1:7301", description="host:port of the index server.")
    learner: str = Field(
        "127.0.0.1:7302",
        description="host:port of the learner; of several, dns:///name:port or ipv4:address:port,address:port.",
    )
    call_timeout_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="How long a caller's request waits for the index server (texts of tasks, items that nobody handed "
        "out). Higher rides out a slow index server, lower answers annotators sooner, with tasks that lack their text.",
    )
    round_timeout_s: float = Field(
        3600.0,
        gt=0,
        le=7 * 86_400,
        description="Longest call of a round to the learner or the index server. Above the longest training; one that "
        "hangs holds a round thread for so long.",
    )
    round_threads: int = Field(
        4,
        ge=1,
        le=256,
        description="Rounds of different campaigns that run at once. They mostly wait for the learner: raise it with "
        "what the learner trains at once; more only queue there.",
    )
    retry_for_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="How long a phase of a round is tried again while a service behind it is away, before its caller "
        "is told UNAVAILABLE. Longer rides out a restart; shorter frees the thread for other campaigns.",
    )
    resume_every_s: float = Field(
        15.0,
        ge=0.1,
        le=3600,
        description="How often rounds that wait for a service, and other work left over, are tried again. Shorter "
        "resumes sooner, at the price of a look into the database and a call to a service that may still be away.",
    )
    llm_endpoints: Path | None = Field(
        None,
        description="YAML file of the language models that campaigns may ask: where each endpoint is, its key and "
        "limits; see docs/language-models.md. Campaigns only name one, so that nobody who creates a campaign can send "
        "texts or keys elsewhere. Read once, at the start.",
    )
    label_studio_servers: Path | None = Field(
        None,
        description="YAML file of the Label Studio servers that campaigns may be linked to: the address and the file "
        "of the token of each; see docs/label-studio.md. Campaigns only name one, so that nobody who links a campaign "
        "can send texts or tokens elsewhere. Read once, at the start.",
    )
    label_studio_sync_every_s: float = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="Pause between two looks at the projects in Label Studio, for new tasks there and new annotations "
        "here. Shorter shows a round sooner, at the price of a few requests a project; annotations come at once "
        "where its webhook reaches the scheduler.",
    )
    max_lease_tasks: int = Field(
        1000, ge=1, le=100_000, description="Tasks in one LeaseTasks. What one annotator may hold back from the others."
    )
    max_labels: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Labels in one SubmitLabels. They are one transaction: more are quicker in all and keep others "
        "waiting for longer. The call must also fit max_message_bytes.",
    )
    max_watchers: int = Field(
        32,
        ge=1,
        le=4096,
        description="Watchers at once. Each holds one of max_concurrent_calls: keep it well below.",
    )
    request_ids_kept_s: float = Field(
        7 * 86_400.0,
        ge=60,
        description="How long a request id protects against a repeated call. Longer than any client tries again; each "
        "takes a row with its answer.",
    )

    @model_validator(mode="after")
    def _check_http(self) -> Self:
        if self.http_listen:
            host, _, port = self.http_listen.rpartition(":")
            if not (host and port.isdecimal() and int(port) <= 65_535):
                raise ValueError(f"http_listen={self.http_listen} is not host:port")
            self.check_exposed("http_listen", self.http_listen)
        return self

    def database(self) -> str:
        """Return the URL of the database."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.data_dir.absolute() / 'scheduler.db'}"
