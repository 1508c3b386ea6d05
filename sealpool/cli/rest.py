"""`sealpool campaign label-rest`: labels for the rest of a pool, and how far they can be trusted."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealpool.cli.options import (
    INDEX,
    LEARNER,
    SCHEDULER,
    UINT32_MAX,
    AsJson,
    CampaignName,
    Index,
    Learner,
    Scheduler,
    index_client,
    learner_client,
    need,
    scheduler_client,
)
from sealpool.cli.output import Json, answer_json, count, facts, note, quality, say, share, table
from sealpool.cli.processes import hold_folder
from sealpool.cli.progress import file_progress
from sealpool.rest.deciding import By
from sealpool.rest.manifest import Manifest, RestRequest
from sealpool.statistics import Share

if TYPE_CHECKING:
    from sealpool.rest.estimating import Estimate


def label_rest(
    name: CampaignName,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", file_okay=False, help="Directory for the labels, in Parquet parts."),
    ],
    by: Annotated[
        By,
        typer.Option(
            help="model: the campaign's. propagation: what the nearest neighbours' labels say. both: only where "
            "the two agree."
        ),
    ] = By.MODEL,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Items less sure than this stay without a label.")
    ] = 0.0,
    trust_model_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --by both: where the model is so sure, its label is taken anyway."),
    ] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, max=UINT32_MAX, help="Whose model. Default: the latest round's.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=10_000, help="Propagation: neighbours an item.")] = 10,
    alpha: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="Propagation: share that comes from neighbours.")
    ] = 0.9,
    audit: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="Ask people for so many items drawn at random, to judge the labels by."),
    ] = 0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Label nothing: judge what DIR has, by the audit labels so far.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what DIR has.")] = False,
    part_rows: Annotated[int, typer.Option(min=1, help="Items a part; so many are in memory at once.")] = 100_000,
    index: Index = INDEX,
    learner: Learner = LEARNER,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Write a label, with confidence and source, for every item of a campaign's pool.

    Items that people labelled keep that label (source `oracle`). A run that was stopped goes on where it was when the
    same command is given again. With `--audit`, people are asked for items drawn at random; once they have labelled
    some, `--estimate` says how right the labels are.

    Examples: `sealpool campaign label-rest spam -o rest --min-confidence 0.8 --audit 200`, then
    `sealpool campaign label-rest spam -o rest --estimate`
    """
    need("pyarrow.parquet", extra="cli")
    if estimate:
        _answer_estimate(name, out, audit, scheduler, as_json)
        return
    request = RestRequest(
        campaign=name,
        by=by,
        min_confidence=min_confidence,
        trust_model_above=trust_model_above,
        round=round_number,
        k=0 if by is By.MODEL else k,
        alpha=0 if by is By.MODEL else alpha,
    )
    with hold_folder(out, f"another label-rest writes to {out}"):
        manifest = _run(request, out, index, learner, scheduler, restart=restart, part_rows=part_rows)
        if audit:
            _draw(manifest, out, audit, scheduler)
    if as_json:
        answer_json({"directory": str(out), **_json(manifest)})
    else:
        say(facts(f"labels of {name}", {"directory": str(out), **_facts(manifest)}))


def _run(
    request: RestRequest, out: Path, index: str, learner: str, scheduler: str, *, restart: bool, part_rows: int
) -> Manifest:
    # Here, because pyarrow takes a while to import, and the other commands do without it.
    from sealpool.rest.labelling import label_rest as write_labels

    with index_client(index) as pools, learner_client(learner) as models, scheduler_client(scheduler) as campaigns:
        items = pools.get_pool(campaigns.get_campaign(request.campaign).spec.pool).size
        with file_progress(f"labelling {request.campaign}") as show:
            return write_labels(
                request,
                out,
                scheduler=campaigns,
                learner=models,
                index=pools,
                restart=restart,
                part_rows=part_rows,
                progress=lambda done: show(done / max(items, 1), done),
            )


def _draw(manifest: Manifest, out: Path, audit: int, scheduler: str) -> None:
    from dataclasses import replace

    from sealpool.rest.manifest import write_manifest

    with scheduler_client(scheduler) as campaigns:
        answer = campaigns.draw_audit(manifest.request.campaign, items=audit)
    write_manifest(out, replace(manifest, audit=max(audit, manifest.audit)))
    note(
        f"{count(answer.drawn)} items are drawn for the audit, {count(answer.labelled)} of them labelled: label the "
        "others as you label tasks, then give --estimate"
    )


def _json(manifest: Manifest) -> dict[str, Json]:
    return {
        "complete": manifest.complete,
        "items": manifest.rows,
        "labelled": manifest.labelled,
        "by_people": manifest.by_people,
        "unlabelled": manifest.rows - manifest.labelled - manifest.by_people,
        "synthetic_left_out": manifest.seen - manifest.rows,
        "parts": len(manifest.parts),
        "round": manifest.round,
        "pool_version": manifest.pool_version,
        "labels_until": manifest.labels_until,
        "by": str(manifest.request.by),
    }


def _facts(manifest: Manifest) -> dict[str, str]:
    rest = manifest.rows - manifest.by_people
    pairs = {
        "items": f"{count(manifest.rows)} in {count(len(manifest.parts))} parts",
        "labelled by people": count(manifest.by_people),
        f"labelled by {manifest.request.by}": f"{count(manifest.labelled)} of {count(rest)}",
        "left without a label": count(rest - manifest.labelled),
    }
    if manifest.seen > manifest.rows:
        pairs["synthetic, left out"] = count(manifest.seen - manifest.rows)
    if manifest.round is not None:
        pairs["model"] = f"of round {manifest.round}"
    return pairs


def _answer_estimate(name: str, out: Path, audit: int, scheduler: str, as_json: bool) -> None:
    from sealpool.rest.estimating import estimate
    from sealpool.rest.manifest import need_manifest

    campaign = need_manifest(out).request.campaign
    if campaign != name:
        raise typer.BadParameter(f"{out} has labels of campaign {campaign}, not {name}")
    with scheduler_client(scheduler) as campaigns:
        found = estimate(out, scheduler=campaigns, audit=audit)
    if as_json:
        answer_json(_estimate_json(found))
        return
    say(facts(f"labels of {name}", {"directory": str(out), **_estimate_facts(found)}))
    if found.given_only.of:
        rows = [
            [one.name, _share_words(one.right_where_said), count(one.right_where_said.of),
             _share_words(one.found_where_true), count(one.found_where_true.of)]
            for one in found.classes
        ]  # fmt: skip
        say(table("", ["class", "right where said", ">said", "found where true", ">true"], rows))
    if found.outstanding:
        note(f"{count(found.outstanding)} of {count(found.drawn)} audited items are not labelled yet")
    elif not found.drawn:
        note("no item was drawn for an audit: give --audit N")


def _estimate_facts(found: "Estimate") -> dict[str, str]:
    return {
        "labels given": f"{count(found.given)} of {count(found.rest)} ({share(found.coverage)})",
        "accuracy of the labels given": f"{_share_words(found.given_only)} from {count(found.given_only.of)} audited",
        "accuracy without a cut": f"{_share_words(found.everything)} from {count(found.everything.of)} audited",
    }


def _share_words(found: Share) -> str:
    return f"{quality(found.value)} ({quality(found.low)} to {quality(found.high)})" if found.of else "–"


def _estimate_json(found: "Estimate") -> Json:
    return {
        "drawn": found.drawn,
        "outstanding": found.outstanding,
        "rest": found.rest,
        "given": found.given,
        "coverage": found.coverage,
        "accuracy": _share_json(found.given_only),
        "accuracy_without_cut": _share_json(found.everything),
        "classes": [
            {
                "name": one.name,
                "precision": _share_json(one.right_where_said),
                "recall": _share_json(one.found_where_true),
            }
            for one in found.classes
        ],
    }


def _share_json(found: Share) -> Json:
    return {**asdict(found), "value": found.value, "low": found.low, "high": found.high}
