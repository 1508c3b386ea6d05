"""The Label Studio servers that campaigns may name: address and token stay with the scheduler."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from sealpool.errors import InvalidArgument
from sealpool.validation import check_name

SETTING = "label_studio_servers"
DEFAULT_SERVER = "default"


class LabelStudioServer(BaseModel):
    """A Label Studio and how to talk to it. Secrets are read when it is made, and hide themselves in `repr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    token_file: Path | None = None
    token_env: str = ""
    verify: bool = True
    """Whether its certificate is checked."""
    ca: Path | None = None
    """PEM file of the authority of its certificate; None: those that the machine trusts."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    ml_password_file: Path | None = None
    """The password by which Label Studio may ask for predictions; with none of the two, it may not."""
    ml_password_env: str = ""
    token: SecretStr = SecretStr("")
    ml_password: SecretStr = SecretStr("")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("is not like https://host or http://host:port")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _read_secrets(self) -> Self:
        if not self.verify and self.ca is not None:
            raise ValueError("ca has no meaning with verify: false")
        if self.ca is not None and not self.ca.is_file():
            raise ValueError(f"ca: {self.ca}: no such file")
        token = _secret("token", self.token_file, self.token_env)
        if not token:
            raise ValueError("give token_file or token_env")
        object.__setattr__(self, "token", SecretStr(token))
        password = _secret("ml_password", self.ml_password_file, self.ml_password_env)
        object.__setattr__(self, "ml_password", SecretStr(password))
        return self


def read_servers(file: Path | None) -> dict[str, LabelStudioServer]:
    """Read a YAML file of servers, name to settings; none where there is no file.

    Raises
    ------
    InvalidArgument
        With the server and its setting at fault. No message holds a secret.
    """
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(SETTING, f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(SETTING, f"{file} is not YAML") from error
    try:
        given = TypeAdapter(dict[str, dict[str, object]]).validate_python(content)
    except ValidationError as error:
        raise InvalidArgument(SETTING, f"{file} is not a mapping of names to settings") from error
    return _checked(given)


def _checked(given: Mapping[str, dict[str, object]]) -> dict[str, LabelStudioServer]:
    servers = {}
    for name, entry in given.items():
        check_name(SETTING, name)
        for secret in ("token", "ml_password"):
            if secret in entry:
                raise InvalidArgument(
                    f"{SETTING}.{name}.{secret}", f"give {secret}_file or {secret}_env: not in the file"
                )
        try:
            servers[name] = LabelStudioServer.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_input=False, include_context=False)[0]
            field = ".".join([SETTING, name, *map(str, first["loc"])])
            raise InvalidArgument(field, first["msg"].removeprefix("Value error, ")) from None
    return servers


def _secret(what: str, file: Path | None, variable: str) -> str:
    if file is not None and variable:
        raise ValueError(f"give {what}_file or {what}_env, not both")
    if variable:
        if not os.environ.get(variable, "").strip():
            raise ValueError(f"{what}_env: {variable} is not set")
        return _fit(what, os.environ[variable].strip())
    if file is None:
        return ""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what}_file: {file} cannot be read") from error
    if not secret:
        raise ValueError(f"{what}_file: {file} is empty")
    return _fit(what, secret)


def _fit(what: str, secret: str) -> str:
    # Whoever reports a header that cannot be sent quotes it.
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"the {what} has characters that no header can carry")
    return secret
