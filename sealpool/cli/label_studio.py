"""`sealpool labelstudio …`: campaigns labelled in Label Studio."""

from typing import Annotated

import typer

from sealpool.cli.options import SCHEDULER, AsJson, CampaignName, Scheduler, client_options
from sealpool.cli.output import answer_json, count, facts, note, plain, say
from sealpool.client.label_studio import LabelStudioClient
from sealpool.v1 import label_studio_pb2

app = typer.Typer(help="Campaigns labelled in Label Studio.", no_args_is_help=True)


@app.command()
def link(
    campaign: CampaignName,
    *,
    server: Annotated[
        str,
        typer.Option(metavar="NAME", help="One of the scheduler's label_studio_servers."),
    ] = "default",
    shown: Annotated[
        str, typer.Option("--input", metavar="text|image", help="What annotators see: texts, or what lies at the uris.")
    ] = "text",
    webhook_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Where Label Studio reaches the scheduler's HTTP front, such as https://host:7323. Without it, "
            "annotations are polled for.",
        ),
    ] = "",
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Make a project for a campaign and keep the two in step. Doing it again changes nothing.

    Example: `sealpool labelstudio link spam --webhook-url http://127.0.0.1:7323`
    """
    with _client(scheduler) as client:
        made = client.link(campaign, server=server, shown=shown, webhook_url=webhook_url)
    _show(made, as_json)


@app.command()
def unlink(campaign: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Keep them in step no longer. The project, and what is in it, stay."""
    with _client(scheduler) as client:
        client.unlink(campaign)
    if as_json:
        answer_json({"campaign": campaign})
    else:
        note(f"campaign {campaign} is no longer linked; its project is still in Label Studio")


@app.command()
def sync(campaign: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Push tasks and fetch annotations now, rather than in a few seconds."""
    with _client(scheduler) as client:
        done = client.sync(campaign)
    if as_json:
        answer_json(plain(done))
        return
    say(f"{count(done.pushed)} tasks pushed, {count(done.closed)} closed, {count(done.received)} annotations taken")
    if done.link.error:
        note(done.link.error)


@app.command()
def show(campaign: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Show a campaign's project and how they stand."""
    with _client(scheduler) as client:
        found = client.get_link(campaign)
    _show(found, as_json)


def _show(one: label_studio_pb2.LabelStudioLink, as_json: bool) -> None:
    if as_json:
        answer_json(plain(one))
        return
    synced = one.synced_at.ToDatetime().isoformat(" ", "seconds") + " UTC" if one.HasField("synced_at") else "not yet"
    told = {
        "project": one.project_url,
        "server": one.server,
        "annotators see": one.input,
        "annotations come": "by webhook and by polling" if one.webhook else "by polling",
        "tasks there": count(one.pushed),
        "annotations taken": count(one.received),
        "last in step": synced,
        "problem": one.error,
    }
    say(facts(f"campaign {one.campaign} in Label Studio", {name: value for name, value in told.items() if value}))


def _client(target: str) -> LabelStudioClient:
    return LabelStudioClient(target, options=client_options())
