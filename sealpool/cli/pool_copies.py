"""`sealpool pool snapshot`, `restore` and `alias`."""

from typing import Annotated

import typer

from sealpool.cli.options import INDEX, AsJson, Index, PoolName, index_client
from sealpool.cli.output import answer_json, count, plain, say, size

alias_app = typer.Typer(help="Names that stand for pools.", no_args_is_help=True)

_Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="A directory on the index server's machine or an object store URL (s3://, gs://, az://), below one of its "
        "snapshot_roots; data_dir/snapshots unless they are set.",
        show_default=False,
    ),
]
_Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The name that stands for a pool.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to those of `sealpool pool`."""
    app.command()(snapshot)
    app.command()(restore)
    app.add_typer(alias_app, name="alias")


def snapshot(name: PoolName, uri: _Uri, *, index: Index = INDEX, as_json: AsJson = False) -> None:
    """Write a pool as it is now, candidate pools and all, to where nothing is yet.

    Example: `sealpool pool snapshot products /backups/products-2026-01-31`
    """
    with index_client(index) as client:
        answer = client.create_snapshot(name, uri)
    if as_json:
        answer_json({"pool": name, "uri": uri, **plain(answer)})
    else:
        say(f"{count(answer.size)} items of {name}, {size(answer.bytes)}, in {uri}")


def restore(
    uri: _Uri,
    *,
    name: Annotated[str, typer.Option(help="Name of the pool that is made. Default: the one it had.")] = "",
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Make a pool from a snapshot, on this machine or another.

    Example: `sealpool pool restore s3://backups/products --name products-old`
    """
    with index_client(index) as client:
        pool = client.restore_snapshot(uri, name=name)
    if as_json:
        answer_json(plain(pool))
    else:
        say(f"made pool {pool.spec.name} with {count(pool.size)} items from {uri}")


@alias_app.command("set")
def set_(alias: _Alias, name: PoolName, *, index: Index = INDEX, as_json: AsJson = False) -> None:
    """Let a name stand for a pool. Campaigns on that name go on in the pool with their next round.

    Example: `sealpool pool alias set products products@7`
    """
    with index_client(index) as client:
        before = client.set_alias(alias, name)
    if as_json:
        answer_json({"alias": alias, "pool": name, "previous_pool": before})
    else:
        say(f"{alias} stands for {name}" + (f", before for {before}" if before else ""))


@alias_app.command()
def delete(alias: _Alias, *, index: Index = INDEX, as_json: AsJson = False) -> None:
    """Forget an alias. The pool stays."""
    with index_client(index) as client:
        client.delete_alias(alias)
    if as_json:
        answer_json({"alias": alias})
    else:
        say(f"{alias} stands for no pool any more")
