"""`sealpool label`."""

from typing import Annotated

import typer

from sealpool.cli.label_terminal_io import RESIZED, Terminal, open_terminal
from sealpool.cli.label_terminal_session import LabelSession
from sealpool.cli.label_terminal_view import lines_of
from sealpool.cli.labels import Annotator, CampaignName, who
from sealpool.cli.options import SCHEDULER, Scheduler, scheduler_client
from sealpool.cli.output import count, note, say


def label(
    campaign: CampaignName,
    *,
    annotator: Annotator = "",
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=100, help="Tasks taken at once. More keep more from other annotators.")
    ] = 5,
    lease: Annotated[
        float, typer.Option(min=0, max=604_800, metavar="SECONDS", help="How long they stay yours. 0: the campaign's.")
    ] = 0.0,
    scheduler: Scheduler = SCHEDULER,
) -> None:
    """Label items in the terminal, with single keys.

    Each answer is handed in at once; u goes back to the last one and corrects it. Where the input is no terminal, each
    line of it is a key, the name of a class, or c and a comment.

    Example: `sealpool label spam --annotator ada`
    """
    with scheduler_client(scheduler) as client:
        session = LabelSession(client, campaign, annotator=who(annotator), batch=batch, lease_s=lease)
        if session.hand is None:
            note(f"no task of {campaign} is open")
            return
        try:
            with open_terminal() as terminal:
                run(session, terminal)
        finally:
            session.close()
            say(f"{count(session.answered)} items answered; {campaign} has {count(session.labelled)} labels")
        if not session.still_open:
            note("no task is open any more")


def run(session: LabelSession, terminal: Terminal) -> None:
    """Show items and do what keys ask until there are no more of either."""
    while not session.is_over:
        columns, rows = terminal.size()
        terminal.show(lines_of(session, columns=columns, rows=rows))
        key = terminal.key(session.renew_every_s)
        session.tick()
        if key == "":
            return
        if session.typed is None and key is not None and (key == "c" or key.startswith("c ")):
            text = key[2:] or terminal.line("comment: ")
            if text is not None:
                session.comment(text)
        elif key is not None and key != RESIZED:
            session.press(key)
