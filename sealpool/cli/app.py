"""The commands put together, and what becomes of their errors.

Exit codes: 0 done, 1 an error (one line on stderr), 2 a wrong command line, 130 Ctrl-C, 143 SIGTERM or SIGHUP.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated

import typer

from sealpool.cli import (
    campaign_report,
    campaigns,
    demo,
    embed,
    erase,
    export,
    label_studio,
    label_terminal,
    labels,
    pools,
    rest,
    services,
    stream,
    tokens,
    vocabulary,
)
from sealpool.cli.output import fail, note
from sealpool.cli.processes import ServiceDied
from sealpool.errors import SealpoolError, Unavailable

# typer has vendored click since 0.2x; its root of usage errors is reached through a public subclass.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

_EPILOG = (
    "Begin with `sealpool demo`, or `sealpool up` in one terminal and the other commands in a second. Beyond loopback, "
    "SEALPOOL_CA_CERTIFICATE (a PEM file) turns TLS on, and SEALPOOL_TOKEN, or SEALPOOL_CLIENT_CERTIFICATE and "
    "SEALPOOL_CLIENT_KEY, show who we are. SEALPOOL_INSECURE=true sends the token without TLS too."
)

app = typer.Typer(
    name="sealpool",
    help="Active learning over pools too large to scan.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
services.register(app)
app.add_typer(pools.app, name="pool")
app.add_typer(campaigns.app, name="campaign")
app.add_typer(labels.tasks_app, name="tasks")
app.add_typer(labels.labels_app, name="labels")
app.add_typer(erase.app, name="erase")
app.add_typer(tokens.app, name="token")
app.add_typer(stream.app, name="stream")
app.command("synthesize")(stream.synthesize)
app.add_typer(label_studio.app, name="labelstudio")
campaigns.app.command("label-rest")(rest.label_rest)
app.command("export")(export.export)
app.command("label")(label_terminal.label)
app.command("report")(campaign_report.report)
app.command("embed")(embed.embed)
app.command("strategies")(vocabulary.strategies)
app.command("models")(vocabulary.models)
app.command("demo")(demo.demo)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind as for Ctrl-C, so that nothing is left running."""


def run_script(arguments: Sequence[str]) -> int:
    """Run one command line as this process, signals included, and return its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = app(args=list(arguments), prog_name="sealpool", standalone_mode=False)
    except _UsageError as error:
        return _usage_error(error)
    except ServiceDied as death:
        note(death.log_tail)
        return fail(death.message)
    except Unavailable as error:
        return fail(_explain(error))
    except SealpoolError as error:
        return fail(error.message)
    except typer.Abort:
        return fail("nothing was done: a question was not answered")
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except BrokenPipeError:
        # The reader of our output left (`… | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return code if isinstance(code, int) else 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _usage_error(error: Exception) -> int:
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    if "\n" in message or not message:  # a group without a command: the help text, or "" where rich printed it
        typer.echo(message, err=True, nl=bool(message))
        return 2
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "sealpool"
    message = message.replace(": Value error, ", ": ", 1)  # typer's options are checked by pydantic, whose word it is
    fail(f"{message.removesuffix('.')} (see `{where} --help`)")
    return 2


def _explain(error: Unavailable) -> str:
    # The last one named: the scheduler, which answered, may say that it cannot reach the learner.
    before, _, problem = error.message.rpartition(" is unavailable: ")
    cannot_connect = ("failed to connect", "resolution", "socket closed", "connection reset")
    if any(words in problem.lower() for words in cannot_connect):
        return f'nothing answers at {before.rpartition(" ")[2]}: is "sealpool up" running?'
    return error.message


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        number = version("sealpool")
    except PackageNotFoundError:  # run from a checkout that is not installed
        number = "unknown (not installed)"
    typer.echo(f"sealpool {number}")
    raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Say the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Active learning over pools too large to scan."""
