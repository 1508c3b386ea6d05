"""`sealpool erase`: people taken out of what the services keep."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import INDEX, SCHEDULER, AsJson, Index, PoolName, Scheduler, index_client, scheduler_client
from sealpool.cli.output import answer_json, count, note, say
from sealpool.client import IndexClient, SchedulerClient
from sealpool.errors import Cancelled, InvalidArgument, NotFound

app = typer.Typer(
    help="Take people out of what the services keep: texts about them, or their names as annotators. Not to be undone.",
    no_args_is_help=True,
)

_AT_ONCE = 1000
"""Names and ids in a call; the scheduler's max_labels is 10,000."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def items(
    pool: PoolName,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Items.", show_default=False)] = None,
    *,
    ids_file: Annotated[
        Path | None, typer.Option("--ids", help="File with an id a line.", exists=True, dir_okay=False)
    ] = None,
    yes: Yes = False,
    index: Index = INDEX,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Delete items from a pool and its files, and replace their ids by pseudonyms in every campaign on the pool.

    Pause those campaigns first. Where the pool was deleted before, ids alone are replaced. Snapshots, backups, text
    models and Label Studio have copies of their own.

    Example: `sealpool erase items reports report-17 report-18`
    """
    wanted = _names("ids", [*(ids or ()), *_lines(ids_file)])
    _confirm(f"Delete {count(len(wanted))} items of {pool}, for good?", yes)
    with index_client(index) as pools, scheduler_client(scheduler) as client:
        deleted, gone = _delete(pools, pool, wanted)
        campaigns = [name for name in _campaigns(client) if _is_on(pools, client, name, pool)]
        if gone is not None and not campaigns:
            raise gone
        answers = {name: _erase_items(client, name, wanted) for name in campaigns}
    derived = {name: made for name, (_, made) in answers.items() if made}
    if as_json:
        known = {name: found for name, (found, _) in answers.items()}
        answer_json({"pool": pool, "deleted": deleted, "campaigns": known, "derived_item_ids": derived})
        return
    replaced = sum(found > 0 for found, _ in answers.values())
    say(f"deleted {count(deleted)} items of {pool}; ids replaced in {count(replaced)} campaigns")
    for name, made in derived.items():
        note(f"{name}: made of them by synthesis, and still there: {', '.join(made)}")


@app.command()
def annotator(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Annotators.", show_default=False)],
    *,
    yes: Yes = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Replace annotators' names by pseudonyms, and empty their comments, in every campaign. Their labels stay.

    Example: `sealpool erase annotator anna.schmidt`
    """
    wanted = _names("names", names)
    _confirm(f"Replace {', '.join(wanted)} everywhere, for good?", yes)
    with scheduler_client(scheduler) as client:
        known = {name: _erase_annotators(client, name, wanted) for name in _campaigns(client)}
    found = {name: number for name, number in known.items() if number}
    if as_json:
        answer_json({"campaigns": found})
    else:
        say(f"replaced in {count(len(found))} campaigns: {', '.join(found) or 'none knows ' + ' or '.join(wanted)}")


def _delete(pools: IndexClient, pool: str, ids: Sequence[str]) -> tuple[int, NotFound | None]:
    """Return how many were deleted; and the error where the pool itself is gone, which campaigns may yet name."""
    try:
        return pools.delete_items(pool, ids, purge=True).deleted, None
    except NotFound as error:
        return 0, error


def _lines(path: Path | None) -> list[str]:
    return [] if path is None else [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def _names(field: str, given: Sequence[str]) -> list[str]:
    if not given:
        raise InvalidArgument(field, "names nothing")
    return list(dict.fromkeys(given))


def _confirm(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question, err=True):
        raise Cancelled("nothing was erased")


def _campaigns(client: SchedulerClient) -> list[str]:
    return [campaign.spec.name for campaign in client.list_campaigns(include_archived=True)]


def _is_on(pools: IndexClient, client: SchedulerClient, campaign: str, pool: str) -> bool:
    spec = client.get_campaign(campaign).spec
    own = _own_name(pools, pool)
    return own in {_own_name(pools, name) for name in (spec.pool, spec.evaluation_pool) if name}


def _own_name(pools: IndexClient, name: str) -> str:
    try:
        return pools.get_pool(name).spec.name  # of an alias: what it stands for
    except NotFound:
        return name


def _erase_items(client: SchedulerClient, campaign: str, ids: Sequence[str]) -> tuple[int, list[str]]:
    found, derived = 0, dict[str, None]()
    for some in _parts(ids):
        answer = client.erase(campaign, item_ids=some)
        found += answer.items
        derived.update(dict.fromkeys(answer.derived_item_ids))
    return found, [item for item in derived if item not in set(ids)]


def _erase_annotators(client: SchedulerClient, campaign: str, names: Sequence[str]) -> int:
    return sum(client.erase(campaign, annotators=some).annotators for some in _parts(names))


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
