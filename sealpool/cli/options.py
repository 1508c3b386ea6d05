"""Options that several commands take, the clients they lead to, and hints for packages that are missing."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from sealpool.client import ClientOptions, IndexClient, LearnerClient, SchedulerClient
from sealpool.errors import FailedPrecondition, InvalidArgument

Index = Annotated[
    str, typer.Option("--index", envvar="SEALPOOL_INDEX", metavar="HOST:PORT", help="Where the index server listens.")
]
Learner = Annotated[
    str, typer.Option("--learner", envvar="SEALPOOL_LEARNER", metavar="HOST:PORT", help="Where the learner listens.")
]
Scheduler = Annotated[
    str,
    typer.Option("--scheduler", envvar="SEALPOOL_SCHEDULER", metavar="HOST:PORT", help="Where the scheduler listens."),
]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", show_default=False)]
CampaignName = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Name of the campaign.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on stdout, for machines.")]

INDEX = "127.0.0.1:7301"
LEARNER = "127.0.0.1:7302"
SCHEDULER = "127.0.0.1:7303"

UINT32_MAX = (1 << 32) - 1
UINT64_MAX = (1 << 64) - 1
"""What the numbers of the contract hold."""


def client_options() -> ClientOptions:
    """Return how the command line connects: it gives up soon, because a person waits; TLS by environment."""
    return ClientOptions(
        retry_for_s=1.0,
        ca_certificate=_path("SEALPOOL_CA_CERTIFICATE"),
        client_certificate=_path("SEALPOOL_CLIENT_CERTIFICATE"),
        client_key=_path("SEALPOOL_CLIENT_KEY"),
        insecure=_switch("SEALPOOL_INSECURE"),
    )


def index_client(target: str) -> IndexClient:
    """Connect to the index server."""
    return IndexClient(target, options=client_options())


def learner_client(target: str) -> LearnerClient:
    """Connect to the learner."""
    return LearnerClient(target, options=client_options())


def scheduler_client(target: str) -> SchedulerClient:
    """Connect to the scheduler."""
    return SchedulerClient(target, options=client_options())


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Raises
    ------
    FailedPrecondition
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise FailedPrecondition(f'this needs {missing}: pip install "sealpool[{extra}]"') from error


def _switch(variable: str) -> bool:
    value = os.environ.get(variable, "").lower()
    if value not in ("", "true", "false"):
        raise InvalidArgument(variable, f"{value!r} is neither true nor false")
    return value == "true"


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable, "")
    return Path(value) if value else None
