"""Rounds run one after the other, with progress."""

from sealpool.cli.output import note, quality, share
from sealpool.cli.progress import counted_progress
from sealpool.client import SchedulerClient
from sealpool.v1 import scheduler_pb2

_ENDED = (scheduler_pb2.CAMPAIGN_STATE_COMPLETED, scheduler_pb2.CAMPAIGN_STATE_ARCHIVED)


def run_rounds(client: SchedulerClient, name: str, *, limit: int | None) -> list[scheduler_pb2.Round]:
    """Run rounds until the campaign is done, `limit` is reached, or tasks wait for somebody's labels."""
    campaign = client.get_campaign(name)
    if campaign.state in _ENDED:
        note(f"campaign {name} is done; no round is left to run")
        return []
    finished: list[scheduler_pb2.Round] = []
    with counted_progress() as progress:
        bar = progress.add_task(name, total=campaign.spec.budget, completed=campaign.labels, remark="")
        while limit is None or len(finished) < limit:
            progress.update(bar, description=f"{name}: round {campaign.rounds}")
            answer = client.run_round(name)
            finished.append(answer.round)
            campaign = client.get_campaign(name)
            progress.update(bar, completed=campaign.labels, remark=remark_on(answer.round, campaign.spec.budget))
            if answer.campaign_state in _ENDED:
                break
            if campaign.open_tasks + campaign.leased_tasks:
                note(f"{campaign.open_tasks:,} tasks wait for labels: sealpool tasks next {name} --annotator YOU")
                break
    return finished


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
