"""Settings: flags over environment over a YAML file over defaults, checked whole at start."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from sealpool.runtime.addresses import is_loopback

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MEBIBYTE = 1 << 20

_ENDPOINT = re.compile(r"(https?://)?([^\s/:@]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")


class ServiceSettings(BaseSettings):
    """What every service can be told. A service subclasses it, with defaults for `listen` and `data_dir`.

    The environment variable of a setting is SEALPOOL_<SERVICE>_<SETTING>, its flag --<setting> with hyphens.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )
    yaml_file: ClassVar[Path | None] = None

    listen: str = Field(
        "127.0.0.1:0",
        description="host:port of the gRPC server; port 0 takes a free one, which the log names. Beyond loopback it "
        "needs TLS, tokens_file, or --insecure. Take TLS: without it tokens travel in clear.",
    )
    metrics_listen: str = Field(
        "127.0.0.1:0", description='host:port where Prometheus scrapes /metrics over HTTP; "" turns it off.'
    )
    health_listen: str = Field(
        "",
        description="host:port of a plain gRPC server with health alone, for probes that speak neither TLS nor tokens "
        '(Kubernetes\'); "" turns it off. It answers also while loading, while full and until all is closed, and tells '
        "no more than whether the service serves, so it needs neither TLS nor tokens beyond loopback.",
    )
    data_dir: Path = Field(
        Path(".sealpool"), description="Everything this service keeps. Put it on a disk that honours fsync."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the server's certificate chain. With tls_key, turns TLS on."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key of tls_certificate.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authority whose client certificates are accepted; asks every client for one.",
    )
    tokens_file: Path | None = Field(
        None,
        description="File of tokens that `sealpool token create` writes. With it every call but health and reflection "
        "must show one, and may do what its role and pools allow. Looked at once a second: no restart is needed. Give "
        "it wherever more than one party can connect.",
    )
    insecure: bool = Field(
        False,
        description="Listen beyond loopback without TLS and tokens, and send tokens without TLS. Only where a mesh or "
        "a firewall does what TLS would.",
    )
    max_message_bytes: int = Field(
        16 * MEBIBYTE,
        ge=MEBIBYTE,
        le=512 * MEBIBYTE,
        description="Largest gRPC message taken. Larger ones save calls and cost this much memory for each call under "
        "way; a client's chunks must fit.",
    )
    max_concurrent_calls: int = Field(
        64,
        ge=1,
        le=4096,
        description="Calls served at once; one more is refused with RESOURCE_EXHAUSTED at once. Each holds a thread. "
        "Raise it for many watchers, lower it where memory is short.",
    )
    max_calls_per_client: int = Field(
        0,
        ge=0,
        le=4096,
        description="Of max_concurrent_calls, how many one client has at most, so that others find some left; 0 means "
        "three quarters. A client is a token, or without tokens an address; on loopback without tokens nothing tells "
        "clients apart, and there is no such limit. Raise it where all calls come through one proxy.",
    )
    stalled_call_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Seconds after which a call is cancelled whose client neither sends what is waited for nor takes "
        "what is sent, and which holds a thread meanwhile; 0 means never. Longer than the slowest client pauses in an "
        "upload or a scan.",
    )
    connection_age_s: float = Field(
        0,
        ge=0,
        le=86_400,
        description="Seconds after which a client is asked to connect anew, a tenth more or less; calls under way are "
        "not cut. 0 means never. Give some minutes where there are replicas, so that clients find new ones.",
    )
    grace_s: float = Field(
        20.0,
        ge=0,
        le=3600,
        description="Seconds that calls under way get to end after SIGTERM. Keep it under the platform's own limit "
        "(Kubernetes: terminationGracePeriodSeconds).",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug adds one line a call; warning keeps only what wants a look."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json, one object a line, for machines; console for eyes."
    )

    trace_endpoint: str = Field(
        "",
        description='Where traces are sent over OTLP/gRPC: host:port, or https://host:port for TLS; "" is nowhere, and '
        "costs nothing. A collector beside the service is best: it buffers, and can keep what was slow or failed. "
        "Needs the extra tracing.",
    )
    trace_sample_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Which share of the traces that begin here is sent; a call that belongs to a trace already goes "
        "by what its caller decided. Lower it where there are thousands of calls a second.",
    )

    @model_validator(mode="after")
    def _check_exposure(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        self.check_exposed("listen", self.listen)
        if self.trace_endpoint and not _ENDPOINT.fullmatch(self.trace_endpoint):
            raise ValueError(f"trace_endpoint={self.trace_endpoint} is neither host:port nor https://host:port")
        return self

    def check_exposed(self, setting: str, address: str) -> None:
        """Raise ValueError, naming the setting, for an address beyond loopback that nothing guards."""
        if not (self.insecure or self.tls_certificate or self.tokens_file or is_loopback(address)):
            raise ValueError(
                f"{setting}={address} is beyond loopback: give tls_certificate and tls_key, tokens_file, or insecure"
            )

    @property
    def calls_per_client(self) -> int:
        """The calls at once that one client has at most."""
        return self.max_calls_per_client or max(1, 3 * self.max_concurrent_calls // 4)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not read: a .env found by chance is a trap
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put a YAML file, if one was named, below the environment."""
        yaml = (YamlConfigSettingsSource(settings_cls, cls.yaml_file),) if cls.yaml_file else ()
        return (init_settings, env_settings, *yaml)


class CallingServiceSettings(ServiceSettings):
    """What a service that calls other services can be told beside that."""

    services_ca: Path | None = Field(
        None, description="PEM file of the authority of the certificates of the services called; turns TLS on."
    )
    services_certificate: Path | None = Field(
        None,
        description="PEM file of the certificate that shows the services called who we are, where they ask for one "
        "(tls_client_ca). Needs services_key and services_ca.",
    )
    services_key: Path | None = Field(None, description="PEM file of the private key of services_certificate.")
    services_token_file: Path | None = Field(
        None,
        description="File with the token sent to the services called, one line, where they ask for one (tokens_file). "
        "Looked at once a second. Beyond loopback it needs services_ca, or insecure.",
    )

    @model_validator(mode="after")
    def _check_services(self) -> Self:
        if (self.services_certificate is None) != (self.services_key is None):
            raise ValueError("services_certificate and services_key go together")
        if self.services_certificate is not None and self.services_ca is None:
            raise ValueError("services_certificate needs services_ca, which turns TLS on")
        return self


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(cls: type[SettingsT], argv: Sequence[str], *, program: str) -> SettingsT:
    """Read the settings of a service: flags in `argv`, then the environment, then the YAML file of --config.

    Raises
    ------
    SystemExit
        For --help, and, with a line for each setting at fault, where settings are unknown or out of range.
    """
    config, flags = _take_config(list(argv))
    if config is not None and not config.is_file():
        raise SystemExit(f"{program}: --config {config}: no such file")
    about = f"{cls.__doc__} --config FILE reads settings from a YAML file: flags and the environment win over it."
    configured = type(cls.__name__, (cls,), {"yaml_file": config, "__doc__": about, "__module__": cls.__module__})
    source: CliSettingsSource[Any] = CliSettingsSource(configured, cli_prog_name=program, cli_parse_args=flags)
    try:
        settings: SettingsT = configured(_cli_settings_source=source)
    except ValidationError as error:
        raise SystemExit("\n".join(f"{program}: {_in_words(fault)}" for fault in error.errors())) from None
    return settings


def _in_words(fault: "ErrorDetails") -> str:
    setting = ".".join(str(part) for part in fault["loc"])
    return f"{setting}: {fault['msg']}" if setting else fault["msg"].removeprefix("Value error, ")


def _take_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    for position, argument in enumerate(argv):
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), argv[:position] + argv[position + 1 :]
        if argument == "--config" and position + 1 < len(argv):
            return Path(argv[position + 1]), argv[:position] + argv[position + 2 :]
    return None, argv
