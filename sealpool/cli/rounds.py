"""Rounds run one after the other, with progress."""

from dataclasses import dataclass, field

from sealpool.cli.output import note, quality, share
from sealpool.cli.progress import counted_progress
from sealpool.client import SchedulerClient
from sealpool.errors import SealpoolError
from sealpool.v1 import scheduler_pb2

_ENDED = (scheduler_pb2.CAMPAIGN_STATE_COMPLETED, scheduler_pb2.CAMPAIGN_STATE_ARCHIVED)


@dataclass(kw_only=True, slots=True)
class Ran:
    """Rounds that ended, and what kept the next from it."""

    finished: list[scheduler_pb2.Round] = field(default_factory=list)
    error: SealpoolError | None = None


def run_rounds(client: SchedulerClient, name: str, *, limit: int | None) -> Ran:
    """Run rounds until the campaign is done or paused, `limit` is reached, or tasks wait for somebody's labels.

    Labels that people owe do not keep a campaign waiting whose own oracle gave others. An error before the first round
    has ended is raised; a later one is returned beside the rounds.
    """
    campaign = client.get_campaign(name)
    ran = Ran()
    if campaign.state in _ENDED:
        note(f"campaign {name} is done; no round is left to run")
        return ran
    with counted_progress() as progress:
        bar = progress.add_task(name, total=campaign.spec.budget, completed=campaign.labels, remark="")
        while limit is None or len(ran.finished) < limit:
            progress.update(bar, description=f"{name}: round {campaign.rounds}")
            try:
                answer = client.run_round(name)
            except SealpoolError as error:
                if not ran.finished:
                    raise
                ran.error = error
                break
            ran.finished.append(answer.round)
            campaign = client.get_campaign(name)
            progress.update(bar, completed=campaign.labels, remark=remark_on(answer.round, campaign.spec.budget))
            if answer.campaign_state != scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
                break
            if _waits_for_people(campaign, answer.round):
                note(f"{campaign.open_tasks:,} tasks wait for labels: sealpool label {name} --annotator YOU")
                break
    return ran


def _waits_for_people(campaign: scheduler_pb2.Campaign, last: scheduler_pb2.Round) -> bool:
    by_people = campaign.spec.oracle.name in ("", "external")
    return bool(campaign.open_tasks + campaign.leased_tasks) and (by_people or not last.picks)


def remark_on(one: scheduler_pb2.Round, budget: int) -> str:
    """Return a round's figures in a few words; "end" where its model has the whole budget's labels."""
    words = ["end" if one.labels >= budget else f"round {one.number}"]
    if one.strategy_reason:
        words.append(one.strategy)
    if one.candidates.size:
        words.append(f"candidates {share(one.candidates.pool_share)}")
    if one.HasField("quality"):
        words.append(f"accuracy {quality(one.quality.accuracy)}")
    return ", ".join(words)
