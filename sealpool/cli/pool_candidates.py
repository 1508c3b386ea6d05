"""`sealpool pool why`, `reach` and `drop-candidates`: what a campaign's candidate pool is made of, and made anew of."""

import math
from typing import Annotated

import typer

from sealpool.cli.options import INDEX, UINT32_MAX, UINT64_MAX, AsJson, CampaignName, Index, PoolName, index_client
from sealpool.cli.output import answer_json, count, plain, say, share, table
from sealpool.v1 import index_pb2

_STATES = {
    index_pb2.CANDIDATE_STATE_CANDIDATE: "candidate",
    index_pb2.CANDIDATE_STATE_LABELLED: "labelled",
    index_pb2.CANDIDATE_STATE_LEFT: "left: gave way to others",
    index_pb2.CANDIDATE_STATE_OUTSIDE: "outside: never was one",
}


def register(app: typer.Typer) -> None:
    """Add the commands to those of `sealpool pool`."""
    app.command()(why)
    app.command()(reach)
    app.command()(drop_candidates)


def why(
    name: PoolName,
    campaign: CampaignName,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Items of the pool.", show_default=False)],
    *,
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Say why items are candidates of a campaign, or are not: which labelled item brought each, and how near it is.

    Example: `sealpool pool why products spam item-17 item-99`
    """
    with index_client(index) as client:
        reasons = client.explain_candidates(name, campaign, ids)
    if as_json:
        answer_json({"pool": name, "campaign": campaign, "items": [plain(reason) for reason in reasons]})
        return
    rows = [
        (
            reason.id,
            _STATES.get(reason.state, str(reason.state)),
            reason.source_id or "–",
            "–" if math.isnan(reason.score) else f"{reason.score:.4f}",
            count(reason.version) if reason.version else "–",
        )
        for reason in reasons
    ]
    say(table("", ["item", "is", "brought by", ">nearness", ">since version"], rows))


def reach(
    name: PoolName,
    campaign: CampaignName,
    *,
    k: Annotated[int, typer.Option("--k", min=0, max=UINT32_MAX, help="Neighbours that an item brings. 0: 100.")] = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=UINT64_MAX, help="Of the sample, where the answer is an estimate.")
    ] = 0,
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Say what share of a pool any number of rounds could reach from a campaign's labels and candidates.

    Example: `sealpool pool reach products spam --k 50`
    """
    with index_client(index) as client:
        answer = client.get_reachability(name, campaign, k=k, seed=seed)
    if as_json:
        answer_json({"pool": name, "campaign": campaign, **plain(answer)})
        return
    error = "" if answer.exact else f" ± {share(answer.standard_error)} (standard error)"
    say(f"{campaign} can reach {share(answer.reachable_share)}{error} of {name} with k = {count(answer.k)}")


def drop_candidates(name: PoolName, campaign: CampaignName, *, index: Index = INDEX, as_json: AsJson = False) -> None:
    """Forget a campaign's candidate pool. Its next round grows it anew, from all its labels.

    For a campaign whose labels were put back to an earlier state, from a backup: its candidate pool knows later ones.

    Example: `sealpool pool drop-candidates products spam`
    """
    with index_client(index) as client:
        dropped = client.drop_candidates(name, campaign)
    if as_json:
        answer_json({"pool": name, "campaign": campaign, "dropped": dropped})
    else:
        say(f"forgot {count(dropped)} candidates of {campaign} in {name}; its next round begins anew")
