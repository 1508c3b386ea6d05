"""Campaigns, rounds and events, as tables and lines."""

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

from rich.table import Table

from sealpool.cli.output import count, facts, plain, quality, seconds, share, table
from sealpool.v1 import common_pb2, scheduler_pb2

_ROUND_COLUMNS = [
    ">round",
    ">labels",
    ">candidates",
    ">share",
    ">accuracy",
    ">mean AP",
    ">expand s",
    ">train s",
    ">score s",
]
_QUALITIES = (">accuracy", ">mean AP")


def rounds_views(rounds: Sequence[scheduler_pb2.Round]) -> list[Table | str]:
    """Return a table with one line a round, and remarks under it.

    The remarks say what picked instead of the campaign's own strategy, what trainings did otherwise than asked, whether
    more labels would help, and why a round failed. How a round stands is said only where one has not finished, and
    columns that no round has anything for are left out.
    """
    columns, rows = list(_ROUND_COLUMNS), [_round_row(one) for one in rounds]
    for name, cell in _SOMETIMES.items():
        cells = [cell(one) for one in rounds]
        if any(cells):
            columns.append(name)
            rows = [[*row, told or "–"] for row, told in zip(rows, cells, strict=True)]
    errors = [f"round {one.number}: {one.error}" for one in rounds if one.error]
    remarks = [*_pickers(rounds), *_notes(rounds), *_advice(rounds), *errors]
    # Closer together where there is more than the usual, so that most campaigns still fit 80 characters.
    gap = 1 if len(columns) > len(_ROUND_COLUMNS) else 2
    figures = table("", *_fitting(columns, rows), gap=gap)
    return [figures, *(fill(remark, 100, subsequent_indent="  ") for remark in remarks)]


def _fitting(columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Leave out what a table too wide can miss: qualities that no round has, then seconds, which the report has."""
    drop: set[str] = set()
    if len(columns) > len(_ROUND_COLUMNS):
        drop |= {name for n, name in enumerate(columns) if name in _QUALITIES and all(row[n] == "–" for row in rows)}
    if len(columns) - len(drop) > len(_ROUND_COLUMNS) + 1:
        drop |= {name for name in columns if name.endswith(" s")}
    kept = [n for n, name in enumerate(columns) if name not in drop]
    return [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]


def _state(one: scheduler_pb2.Round) -> str:
    return "" if one.state == scheduler_pb2.ROUND_STATE_FINISHED else str(plain(one)["state"])


def _active_accuracy(one: scheduler_pb2.Round) -> str:
    test = one.active_test
    if not test.points:
        return ""
    return f"{quality(test.accuracy)} ({quality(test.accuracy_low)} to {quality(test.accuracy_high)})"


_SOMETIMES: Mapping[str, Callable[[scheduler_pb2.Round], str]] = {
    ">ECE": lambda one: quality(one.quality.expected_calibration_error) if _is_calibrated(one) else "",
    ">tested accuracy": _active_accuracy,
    ">doubt": lambda one: quality(one.survey.mean_uncertainty) if one.HasField("survey") else "",
    ">changed": lambda one: share(one.survey.classification_change) if _is_compared(one) else "",
    "state": _state,
}
"""Columns that only some campaigns have."""


def _is_calibrated(one: scheduler_pb2.Round) -> bool:
    return one.HasField("quality") and one.quality.expected_calibration_error > 0


def _is_compared(one: scheduler_pb2.Round) -> bool:
    return one.HasField("survey") and not math.isnan(one.survey.classification_change)


def _advice(rounds: Sequence[scheduler_pb2.Round]) -> list[str]:
    """Return the latest survey's recommendation, if it is to stop."""
    surveyed = [one for one in rounds if one.HasField("survey")]
    if not surveyed or not surveyed[-1].survey.recommends_stop:
        return []
    return [f"after round {surveyed[-1].number} more labels seem not to help: {surveyed[-1].survey.reason}"]


def _pickers(rounds: Sequence[scheduler_pb2.Round]) -> list[str]:
    """Return a line for each time that another strategy began to pick, from the first that had a reason to."""
    lines: list[str] = []
    before = ""
    for one in rounds:
        if one.strategy and one.strategy != before and (one.strategy_reason or lines):
            reason = one.strategy_reason.removeprefix(f"{one.strategy}: ")  # auto begins with what it chose
            why = f": {reason}" if reason else ""
            lines.append(f"from round {one.number} picked by {one.strategy}{why}")
        before = one.strategy or before
    return lines


def _notes(rounds: Sequence[scheduler_pb2.Round]) -> list[str]:
    """Return a line for each thing that trainings did otherwise than asked, with the rounds that it was in."""
    found: dict[str, list[str]] = {}
    for one in rounds:
        for note in one.notes:
            found.setdefault(note, []).append(str(one.number))
    return [f"round {', '.join(numbers)}: {note}" for note, numbers in found.items()]


def _round_row(one: scheduler_pb2.Round) -> list[str]:
    measured = one.HasField("quality")
    selected = one.candidates.version > 0  # the seed set and the last model come without candidates
    return [
        str(one.number),
        count(one.labels),
        count(one.candidates.size) if selected else "–",
        share(one.candidates.pool_share) if selected else "–",
        quality(one.quality.accuracy) if measured else "–",
        quality(one.quality.mean_average_precision) if measured else "–",
        seconds(one.seconds.expand),
        seconds(one.seconds.train),
        seconds(one.seconds.score),
    ]


def campaigns_table(campaigns: Sequence[scheduler_pb2.Campaign]) -> Table:
    """Return one line a campaign."""
    columns = ["campaign", "pool", "state", ">rounds", ">labels", ">budget", ">open", ">leased", "strategy"]
    rows = [
        (
            one.spec.name,
            one.spec.pool,
            str(plain(one)["state"]),
            count(one.rounds),
            count(one.labels),
            count(one.spec.budget),
            count(one.open_tasks),
            count(one.leased_tasks),
            one.spec.strategy.name,
        )
        for one in campaigns
    ]
    return table("", columns, rows)


def campaign_facts(campaign: scheduler_pb2.Campaign) -> Table:
    """Return what there is to say of one campaign."""
    spec = campaign.spec
    classes = ", ".join(spec.classes[:8]) + (f" and {len(spec.classes) - 8} more" if len(spec.classes) > 8 else "")
    pairs = {
        "state": str(plain(campaign)["state"]) + (f": {campaign.state_reason}" if campaign.state_reason else ""),
        "pool": spec.pool,
        "task": str(plain(spec)["task"]),
        "classes": classes,
        "labels": _labels_words(campaign),
        "rounds": count(campaign.rounds),
        "tasks": _tasks_words(campaign),
        "model": _model_words(spec.model),
        "picks": f"{_strategy_words(spec.strategy)} over {_policy_words(spec)}, batches of {batch_words(spec)}",
        "labelled by": _oracle_words(spec),
        "measured on": _evaluation_words(spec),
    }
    return facts(f"campaign {spec.name}", pairs)


def _labels_words(campaign: scheduler_pb2.Campaign) -> str:
    words = f"{count(campaign.labels + campaign.evaluation_labels)} of {count(campaign.spec.budget)}"
    if campaign.evaluation_labels:
        words += f", {count(campaign.evaluation_labels)} of them held out"
    return words + (f"; {count(campaign.given_up)} items given up" if campaign.given_up else "")


def _tasks_words(campaign: scheduler_pb2.Campaign) -> str:
    words = f"{count(campaign.open_tasks)} open, {count(campaign.leased_tasks)} leased"
    return words + (f"; {count(campaign.review_tasks)} for evaluation or review" if campaign.review_tasks else "")


def _oracle_words(spec: scheduler_pb2.CampaignSpec) -> str:
    name = spec.oracle.name or "external"
    if name == "llm":
        name = f"{spec.oracle.llm.model}, and people where it cannot tell"
    several = spec.annotation.annotations
    return f"{name}, {several} an item" if several > 1 else name


def _evaluation_words(spec: scheduler_pb2.CampaignSpec) -> str:
    if spec.evaluation_pool:
        return spec.evaluation_pool
    held_out = spec.evaluation
    drawn = f"{count(held_out.items)} items of the pool" if held_out.items else ""
    chosen = f"{held_out.test_points} test points a round, actively chosen" if held_out.test_points else ""
    return " and ".join(filter(None, (drawn, chosen))) or "nothing (neither an evaluation pool nor held-out items)"


def batch_words(spec: scheduler_pb2.CampaignSpec) -> str:
    """Return how many items a round takes."""
    return f"{100 * spec.batch_share:g} % of the pool" if spec.batch_share else count(spec.batch_size)


def _model_words(model: common_pb2.ModelSpec) -> str:
    words = [model.name or "logistic_regression"]
    if model.uncertainty.estimator not in ("", "softmax"):
        words.append(model.uncertainty.estimator)
    if model.retrain > common_pb2.RETRAIN_SCRATCH:
        words.append(f"retrained {plain(model)['retrain']}")
    return ", ".join(words)


def _strategy_words(strategy: common_pb2.StrategySpec) -> str:
    name = strategy.name or "entropy"
    return f"{name} ({strategy.base})" if strategy.base else name


def _policy_words(spec: scheduler_pb2.CampaignSpec) -> str:
    policy = spec.policy
    size = f"{count(policy.subpool_size or 1_000)} items"
    match policy.name:
        case "full":
            return "the whole pool"
        case "random_subset":
            words = f"random_subset ({size})"
        case "anchoral":
            words = f"anchoral ({size}, {count(policy.anchors or 10)} anchors a class, k = {count(policy.k or 50)})"
        case _:
            cap = f", at most {count(policy.max_candidates)}" if policy.max_candidates else ""
            growth = ", growing after each pick" if policy.growth == common_pb2.CANDIDATE_GROWTH_PICK else ""
            words = f"{policy.name or 'seals'} (k = {count(policy.k or 100)}{cap}{growth})"
    return words + (f", {share(spec.exploration)} exploration" if spec.exploration else "")


def event_line(event: scheduler_pb2.WatchCampaignResponse) -> str:
    """Return one event in one line."""
    when = f"{event.at.ToDatetime():%Y-%m-%d %H:%M:%S} UTC  #{event.sequence}  "
    if event.HasField("campaign_state_changed"):
        return f"{when}campaign is {plain(event.campaign_state_changed)['state']}"
    if event.HasField("labels_arrived"):
        arrived = event.labels_arrived
        return f"{when}{count(arrived.accepted)} labels arrived, {count(arrived.labels)} now"
    one = event.round_changed.round
    words = f"{when}round {one.number} {plain(one)['state']}, {count(one.labels)} labels"
    if one.candidates.size:
        words += f", {count(one.candidates.size)} candidates ({share(one.candidates.pool_share)} of the pool)"
    if one.strategy_reason:
        words += f", picked by {one.strategy}"
    if one.HasField("quality"):
        words += f", accuracy {quality(one.quality.accuracy)}"
    return words + (f": {one.error}" if one.error else "")
