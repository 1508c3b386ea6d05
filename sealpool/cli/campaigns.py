"""`sealpool campaign …`."""

from typing import Annotated

import typer

from sealpool.cli.campaign_create import create
from sealpool.cli.campaign_file import apply, to_yaml, validate
from sealpool.cli.campaign_views import campaign_facts, campaigns_table, event_line, rounds_views
from sealpool.cli.export import export
from sealpool.cli.label_history import oracles
from sealpool.cli.options import (
    SCHEDULER,
    AsJson,
    CampaignName,
    Scheduler,
    scheduler_client,
)
from sealpool.cli.output import answer_json, plain, say
from sealpool.cli.rounds import run_rounds
from sealpool.v1 import scheduler_pb2

app = typer.Typer(help="Campaigns: one labelling effort on one pool, in rounds.", no_args_is_help=True)
app.command()(create)
app.command()(validate)
app.command()(apply)
app.command()(oracles)
app.command()(export)


@app.command()
def run(
    name: CampaignName,
    *,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many; fewer where the campaign is done, or its tasks wait for labels. Default: no limit.",
        ),
    ] = None,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Run rounds now, whatever the campaign's rule says.

    With an external oracle a round ends when its tasks are there: label them (`sealpool label`), and run again.

    Example: `sealpool campaign run spam --rounds 1`
    """
    with scheduler_client(scheduler) as client:
        ran = run_rounds(client, name, limit=rounds)
        campaign = client.get_campaign(name)
    if as_json:
        answer_json({"campaign": plain(campaign), "rounds": [plain(one) for one in ran.finished]})
    else:
        if ran.finished:
            say(*rounds_views(ran.finished))
        say(campaign_facts(campaign))
    if ran.error is not None:
        raise ran.error


@app.command()
def show(
    name: CampaignName,
    *,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Only its spec, as `campaign apply` reads it from a file.")
    ] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Show one campaign and its rounds."""
    if as_yaml and as_json:
        raise typer.BadParameter("give --yaml or --json, not both")
    with scheduler_client(scheduler) as client:
        campaign = client.get_campaign(name)
        if as_yaml:
            say(to_yaml(campaign.spec).rstrip())
            return
        rounds = client.list_rounds(name)
    if as_json:
        answer_json({"campaign": plain(campaign), "rounds": [plain(one) for one in rounds]})
        return
    say(campaign_facts(campaign))
    if rounds:
        say(*rounds_views(rounds))


@app.command("list")
def list_(
    *,
    archived: Annotated[bool, typer.Option("--archived", help="Those that were archived too.")] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """List campaigns."""
    with scheduler_client(scheduler) as client:
        campaigns = client.list_campaigns(include_archived=archived)
    if as_json:
        answer_json({"campaigns": [plain(campaign) for campaign in campaigns]})
    elif campaigns:
        say(campaigns_table(campaigns))
    else:
        say("no campaigns yet; `sealpool campaign create NAME …` begins one")


@app.command()
def watch(
    name: CampaignName,
    *,
    after: Annotated[int, typer.Option(min=0, metavar="SEQUENCE", help="Only events after this one.")] = 0,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Follow a campaign's events until Ctrl-C or until it is archived. With --json, one object a line."""
    with scheduler_client(scheduler) as client:
        for event in client.watch_campaign(name, after_sequence=after):
            if as_json:
                answer_json(plain(event))
            else:
                say(event_line(event))


@app.command()
def pause(name: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Start no round and hand out no task until it is resumed; labels are still taken."""
    with scheduler_client(scheduler) as client:
        _answer_change(client.pause_campaign(name), as_json)


@app.command()
def resume(name: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Go on after a pause."""
    with scheduler_client(scheduler) as client:
        _answer_change(client.resume_campaign(name), as_json)


@app.command()
def archive(name: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """End a campaign for good; its labels and rounds stay readable."""
    with scheduler_client(scheduler) as client:
        _answer_change(client.archive_campaign(name), as_json)


def _answer_change(campaign: scheduler_pb2.Campaign, as_json: bool) -> None:
    if as_json:
        answer_json(plain(campaign))
    else:
        say(f"campaign {campaign.spec.name} is {plain(campaign)['state']}")
