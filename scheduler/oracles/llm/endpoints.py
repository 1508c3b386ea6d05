"""Where language models are: the file that the setting `llm_endpoints` names, read and checked whole at the start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.runtime.addresses import is_loopback
from sealpool.validation import check_name

SETTING = "llm_endpoints"
MILLION = 1_000_000


class Endpoint(BaseModel):
    """A place that speaks the chat completions protocol, and what may be asked of it.

    Parameters
    ----------
    base_url
        Up to and with the version: http://127.0.0.1:8000/v1.
    api_key
        Read from `api_key_file` or `api_key_env`; empty where the endpoint asks for none.
    max_concurrency
        Requests under way at once, over all campaigns.
    requests_per_minute, tokens_per_minute
        Of all campaigns; 0: no such limit. Requests are spread evenly over the minute.
    timeout_s
        How long an answer is waited for.
    max_attempts
        How often a request is sent before the round waits for the endpoint.
    price_in, price_out
        Money for a million tokens of questions and of answers.
    max_answer_tokens
        Where an answer is cut: bounds what a model that does not stop can cost. Models that reason need room for that.
    answer_tokens_field
        What the endpoint calls that limit.
    supports_schema, supports_json
        Whether it can be held to a JSON schema; failing that, to JSON.
    insecure
        Send the key over plain HTTP beyond loopback.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    api_key_file: Path | None = None
    api_key_env: str | None = None
    api_key: SecretStr = Field(default=SecretStr(""), exclude=True)
    max_concurrency: int = Field(default=8, ge=1, le=256)
    requests_per_minute: float = Field(default=0, ge=0, allow_inf_nan=False)
    tokens_per_minute: float = Field(default=0, ge=0, allow_inf_nan=False)
    timeout_s: float = Field(default=60, gt=0, le=3600)
    max_attempts: int = Field(default=6, ge=1, le=20)
    price_in: float = Field(default=0, ge=0, allow_inf_nan=False)
    price_out: float = Field(default=0, ge=0, allow_inf_nan=False)
    max_answer_tokens: int = Field(default=1024, ge=16, le=1_000_000)
    answer_tokens_field: str = Field(default="max_tokens", pattern="^(max_tokens|max_completion_tokens)$")
    supports_schema: bool = True
    supports_json: bool = True
    insecure: bool = False

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not http://… or https://…")
        if parts.username or parts.password or parts.query:
            raise ValueError("has a user, a password or a query: a key belongs in api_key_file or api_key_env")
        return url

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.api_key_file is not None and self.api_key_env is not None:
            raise ValueError("api_key_file and api_key_env are both given: give one")
        parts = urlsplit(self.base_url)
        clear = parts.scheme == "http" and not is_loopback(f"{parts.hostname}:{parts.port or 80}")
        if clear and self.api_key.get_secret_value() and not self.insecure:
            raise ValueError("base_url sends the key in clear beyond loopback: take https://, or say insecure: true")
        return self

    def cost(self, *, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / MILLION

    @property
    def has_prices(self) -> bool:
        """Whether anything costs money."""
        return bool(self.price_in or self.price_out)


def load_endpoints(path: Path | None, *, environment: Mapping[str, str] = os.environ) -> Mapping[str, Endpoint]:
    """Read the endpoints by name; none where there is no file.

    Raises
    ------
    InvalidArgument
        The file cannot be read, or something in it is wrong: the message names the endpoint and the field, never a key.
    """
    if path is None:
        return {}
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(SETTING, f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InvalidArgument(SETTING, f"{path} is not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(told, dict) or not all(isinstance(part, dict) for part in told.values()):
        raise InvalidArgument(SETTING, f"{path} does not map names to endpoints")
    return {_name(path, name): _endpoint(path, str(name), fields, environment) for name, fields in told.items()}


def endpoint_named(endpoints: Mapping[str, Endpoint], name: str, *, field: str) -> Endpoint:
    """Return one of `endpoints`, or raise FailedPrecondition that lists them."""
    if name in endpoints:
        return endpoints[name]
    known = ", ".join(sorted(endpoints)) or f"none: the scheduler's setting {SETTING} names the file that has them"
    raise FailedPrecondition(f"{field}: the scheduler has no endpoint {name!r}; it has {known}", field=field)


def _name(path: Path, name: object) -> str:
    if not isinstance(name, str):
        raise InvalidArgument(SETTING, f"{path}: {name!r} is no name of an endpoint")
    check_name(SETTING, name)
    return name


def _endpoint(path: Path, name: str, fields: Mapping[object, object], environment: Mapping[str, str]) -> Endpoint:
    where = f"{path}: endpoint {name!r}"
    if "api_key" in fields:
        raise InvalidArgument(SETTING, f"{where}: api_key: a key is not written here; give api_key_file or api_key_env")
    told = {str(field): value for field, value in fields.items()}
    try:
        endpoint = Endpoint.model_validate(told)
        key = _key(where, path.parent, endpoint, environment)
        return Endpoint.model_validate({**told, "api_key": key})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise InvalidArgument(SETTING, f"{where}: {f'{field}: ' if field else ''}{problem}") from None


def _key(where: str, folder: Path, endpoint: Endpoint, environment: Mapping[str, str]) -> SecretStr:
    key = ""
    if endpoint.api_key_env is not None:
        key = environment.get(endpoint.api_key_env, "").strip()
        if not key:
            raise InvalidArgument(SETTING, f"{where}: api_key_env: {endpoint.api_key_env} is not set, or empty")
    if endpoint.api_key_file is not None:
        try:
            key = (folder / endpoint.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InvalidArgument(SETTING, f"{where}: api_key_file: cannot be read") from None
        if not key:
            raise InvalidArgument(SETTING, f"{where}: api_key_file: is empty")
    if not (key.isascii() and key.isprintable()):
        raise InvalidArgument(SETTING, f"{where}: the key has characters that no header can carry")
    return SecretStr(key)
