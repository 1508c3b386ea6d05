"""`sealpool token …`: the file of tokens that a service is told with tokens_file."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import AsJson
from sealpool.cli.output import Json, answer_json, note, say, table
from sealpool.errors import AlreadyExists, NotFound
from sealpool.runtime import tokens
from sealpool.runtime.tokens import Token

app = typer.Typer(help="Tokens: who may call the services, and for which pools.", no_args_is_help=True)


class Role(StrEnum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


TokenName = Annotated[str, typer.Option("--name", help="Whom or what the token is for.", show_default=False)]
TokensFile = Annotated[
    Path,
    typer.Option("--file", help="The file of tokens: a service's tokens_file.", dir_okay=False, show_default=False),
]


@app.command()
def create(
    *,
    name: TokenName,
    role: Annotated[
        Role,
        typer.Option(
            "--role",
            help="read looks; write also changes items and candidates, and runs rounds; admin also makes and deletes.",
        ),
    ] = Role.READ,
    pools: Annotated[
        list[str] | None,
        typer.Option("--pools", help="A pool it is for, or the beginning of names and a *. May be repeated."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", min=0, max=36_500, help="After so many days it ends; else never.", show_default=False),
    ] = None,
    file: TokensFile,
    as_json: AsJson = False,
) -> None:
    """Make a token, print it once, and put its hash into the file. Services that run know it within a second.

    Example: `sealpool token create --name dashboard --role read --pools 'reports*' --file tokens.json`
    """
    now = datetime.now(UTC).replace(microsecond=0)
    secret, token = tokens.make_token(
        name,
        role=tokens.Role[role.name],
        pools=pools or ["*"],
        created=now,
        expires_at=None if days is None else now + timedelta(days=days),
    )
    with tokens.edited(file) as replace:
        known = tokens.read_tokens(file) if file.exists() else ()
        if any(one.name == name for one in known):
            raise AlreadyExists("token", name)
        replace([*known, token])
    if as_json:
        answer_json({**_plain(token), "token": secret})
    else:
        note("The token is shown this once: keep it where secrets are kept.")
        say(secret)


@app.command("list")
def list_(*, file: TokensFile, as_json: AsJson = False) -> None:
    """Show the tokens of a file: names, roles and pools.

    Example: `sealpool token list --file tokens.json`
    """
    known = tokens.read_tokens(file)
    if as_json:
        answer_json({"tokens": [_plain(token) for token in known]})
        return
    rows = [[token.name, token.role.word, " ".join(token.pools), _day(token.created), _end(token)] for token in known]
    say(table("", ["name", "role", "pools", "created", "ends"], rows))


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.", show_default=False)],
    *,
    file: TokensFile,
    as_json: AsJson = False,
) -> None:
    """Take a token out of the file. Services that run refuse it within a second.

    Example: `sealpool token revoke dashboard --file tokens.json`
    """
    with tokens.edited(file) as replace:
        known = tokens.read_tokens(file)
        kept = [token for token in known if token.name != name]
        if len(kept) == len(known):
            raise NotFound("token", name)
        replace(kept)
    if as_json:
        answer_json({"revoked": name})
    else:
        say(f"revoked token {name}")


def _plain(token: Token) -> dict[str, Json]:
    return {
        "name": token.name,
        "role": token.role.word,
        "pools": list(token.pools),
        "created": token.created.isoformat(),
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
    }


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _end(token: Token) -> str:
    if token.expires_at is None:
        return "never"
    return f"{'ended ' if token.expires_at <= datetime.now(UTC) else ''}{_day(token.expires_at)}"
