"""`sealpool report`: a campaign on one page."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import (
    INDEX,
    SCHEDULER,
    AsJson,
    CampaignName,
    Index,
    Scheduler,
    index_client,
    need,
    scheduler_client,
)
from sealpool.cli.output import answer_json, say
from sealpool.report.page import render
from sealpool.report.reading import read_material


def report(
    name: CampaignName,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="Where to write. Default: CAMPAIGN.html."),
    ] = None,
    index: Index = INDEX,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a campaign: how good, what was picked and why, who labelled, at what cost.

    It opens without a network.

    Example: `sealpool report spam -o spam.html`
    """
    need("jinja2", extra="cli")
    path = out or Path(f"{name}.html")
    with scheduler_client(scheduler) as campaigns, index_client(index) as pools:
        material = read_material(name, campaigns, pools)
    page = render(material, written_at=datetime.now(UTC))
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    if as_json:
        answer_json({"campaign": name, "file": str(path), "rounds": len(material.rounds), "missing": material.missing})
    else:
        say(f"report of {name} in {path}", *material.missing)
