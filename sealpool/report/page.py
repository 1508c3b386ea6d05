"""The page: charts and tables of a campaign's material, put into the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module, resources

from sealpool.errors import FailedPrecondition
from sealpool.report.charts import Series, heat_strips, line_chart, stacked_bars
from sealpool.report.reading import Material
from sealpool.report.words import decimal, few, percent, seconds, share, short, word
from sealpool.statistics import Share
from sealpool.v1 import common_pb2, scheduler_pb2

_MOST_CLASSES = 9
_PHASES = ("expand", "train", "score", "evaluate", "the rest of the round")

Rounds = Sequence[scheduler_pb2.Round]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart with its legend; `svg` is "" where there is nothing to draw, and `instead` says why."""

    title: str
    svg: str
    instead: str
    legend: Sequence[str] = ()
    caption: str = ""


def render(material: Material, *, written_at: datetime) -> str:
    """Return the page as HTML. It loads nothing from anywhere.

    Raises
    ------
    FailedPrecondition
        Jinja2 is not installed.
    """
    try:
        jinja2 = import_module("jinja2")
    except ModuleNotFoundError as error:
        raise FailedPrecondition('this needs jinja2: pip install "sealpool[cli]"') from error
    source = resources.files("sealpool.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    campaign, rounds = material.campaign, material.rounds
    page: str = template.render(
        material=material,
        spec=campaign.spec,
        state=word(scheduler_pb2.CampaignState.Name(campaign.state), "CAMPAIGN_STATE_"),
        task=word(common_pb2.TaskKind.Name(campaign.spec.task), "TASK_KIND_"),
        classes=few(list(campaign.spec.classes)),
        figures=_figures(material),
        quality=[_learning_curve(rounds)],
        looked_at=[_growth(rounds), _growth_share(rounds)],
        told=[_class_balance(campaign.spec, rounds), _uncertainty(rounds)],
        stopping=_stopping(rounds),
        recommendation=next((one.survey.reason for one in reversed(rounds) if one.survey.recommends_stop), ""),
        picked=[_origins(rounds)],
        times=[_phase_times(rounds)],
        rounds=[_round_row(one) for one in rounds],
        notes=_notes(rounds),
        annotators=[_annotator_row(one) for one in material.oracles.annotators] if material.oracles else [],
        agreement=_agreement(material),
        llm=_llm(material),
        written_at=f"{written_at:%Y-%m-%d %H:%M} UTC",
        share=share,
    )
    return page


def _figures(material: Material) -> list[tuple[str, str, str]]:
    """Return what stands out: (what, figure, remark)."""
    campaign, spec = material.campaign, material.campaign.spec
    paid = campaign.labels + campaign.evaluation_labels
    found = [
        ("labels", f"{paid:,}", f"of a budget of {spec.budget:,}"),
        ("rounds", f"{campaign.rounds:,}", f"{campaign.open_tasks + campaign.leased_tasks:,} tasks wait for labels"),
    ]
    measured = [one for one in material.rounds if one.HasField("quality")]
    if measured:
        last = measured[-1]
        interval = _accuracy(last)
        found.append(
            ("accuracy now", decimal(last.quality.accuracy), f"{decimal(interval.low)} to {decimal(interval.high)}")
        )
    grown = [one.candidates.pool_share for one in material.rounds if one.candidates.version]
    if grown:
        found.append(("most of the pool looked at", share(max(grown)), "as candidates of one round"))
    return found


def _learning_curve(rounds: Rounds) -> Chart:
    measured = [one for one in rounds if one.HasField("quality")]
    tested = [one for one in rounds if one.HasField("active_test") and one.active_test.points]
    accuracy = [_accuracy(one) for one in measured]
    series = [
        Series(
            name="accuracy",
            points=[(one.labels, one.quality.accuracy) for one in measured],
            intervals=[(one.low, one.high) for one in accuracy],
        ),
        Series(name="macro F1", points=[(one.labels, one.quality.macro_f1) for one in measured]),
        Series(
            name="accuracy by active testing",
            points=[(one.labels, one.active_test.accuracy) for one in tested],
            intervals=[(one.active_test.accuracy_low, one.active_test.accuracy_high) for one in tested],
            band=False,
        ),
    ]
    items = max((one.quality.items for one in measured), default=0)
    return Chart(
        title="Learning curve",
        svg=line_chart("Learning curve", series, x_title="labels", words=lambda value: f"{value:.2f}", most=1.0),
        instead="No round was measured: the campaign has neither an evaluation pool nor held-out items.",
        legend=[one.name for one in series if any(math.isfinite(y) for _, y in one.points)],
        caption=f"On {items:,} held-out items; the band is the 95 % interval (Wilson) of the accuracy."
        if items
        else "",
    )


def _accuracy(one: scheduler_pb2.Round) -> Share:
    items = one.quality.items if math.isfinite(one.quality.accuracy) else 0
    return Share(right=round(one.quality.accuracy * items) if items else 0, of=items)


def _growth(rounds: Rounds) -> Chart:
    points = [(one.number, float(one.candidates.size)) for one in rounds if one.candidates.version]
    series = [Series(name="candidates", points=points)]
    return Chart(
        title="Candidates",
        svg=line_chart("Candidates", series, x_title="round", words=short, most=1.0),
        instead="No round has picked from candidates yet.",
        caption="Items that a round could pick from.",
    )


def _growth_share(rounds: Rounds) -> Chart:
    points = [(one.number, one.candidates.pool_share) for one in rounds if one.candidates.version]
    series = [Series(name="share of the pool", points=points)]
    return Chart(
        title="Candidates as a share of the pool",
        svg=line_chart("Candidates as a share of the pool", series, x_title="round", words=percent),
        instead="No round has picked from candidates yet.",
        caption="What a round looks at, against all that there is.",
    )


def _class_balance(spec: scheduler_pb2.CampaignSpec, rounds: Rounds) -> Chart:
    counted = [one for one in rounds if one.class_counts]
    last = list(counted[-1].class_counts) if counted else []
    order = sorted(range(len(last)), key=lambda place: (-last[place], place))
    shown = order[:_MOST_CLASSES]
    names = [spec.classes[place] for place in shown]
    others = order[_MOST_CLASSES:]
    columns = []
    for one in counted:
        values = [float(one.class_counts[place]) for place in shown]
        columns.append((str(one.number), [*values, float(sum(one.class_counts[place] for place in others))]))
    return Chart(
        title="Labels by class",
        svg=stacked_bars("Labels by class", columns, [*names, "other classes"], x_title="round", words=short),
        instead="No round has begun with labels yet.",
        legend=[*names, *(["other classes"] if others else [])],
        caption="Labelled items with each class, at the beginning of each round.",
    )


def _uncertainty(rounds: Rounds) -> Chart:
    rows = [(f"{one.number}", list(one.survey.uncertainty_counts)) for one in rounds if one.HasField("survey")]
    return Chart(
        title="The model’s doubt",
        svg=heat_strips("The model’s doubt", rows, x_title="entropy, one strip a round", ends=("sure", "in doubt")),
        instead="No survey was made: the campaign has no stopping criteria.",
        caption="Items of the stop set by the entropy of what the model says of them. Darker: more items.",
    )


def _origins(rounds: Rounds) -> Chart:
    """Return the chart of where picks came from, by round."""
    known = [value for value in common_pb2.PickOrigin.values() if value]
    counts = [(one, {value: _at(one.origin_counts, value) for value in known}) for one in rounds if one.origin_counts]
    shown = [value for value in known if any(of_round[value] for _, of_round in counts)]
    names = [word(common_pb2.PickOrigin.Name(value), "PICK_ORIGIN_") for value in shown]
    columns = [(str(one.number), [float(of_round[value]) for value in shown]) for one, of_round in counts]
    return Chart(
        title="Picks by where they came from",
        svg=stacked_bars("Picks by where they came from", columns, names, x_title="round", words=short),
        instead="No round has picked yet.",
        legend=names,
        caption="Candidates are the strategy’s choice; exploration and fill are drawn at random outside them.",
    )


def _at(counts: Sequence[int], place: int) -> int:
    return counts[place] if place < len(counts) else 0


def _phase_times(rounds: Rounds) -> Chart:
    columns = []
    for one in rounds:
        parts = [one.seconds.expand, one.seconds.train, one.seconds.score, one.seconds.evaluate]
        columns.append((str(one.number), [*parts, max(0.0, one.seconds.total - sum(parts))]))
    return Chart(
        title="Time of a round",
        svg=stacked_bars("Time of a round", columns, _PHASES, x_title="round", words=seconds),
        instead="No round has finished yet.",
        legend=list(_PHASES),
        caption="The rest is the scheduler’s own, and the oracle’s where it labels within the round.",
    )


def _stopping(rounds: Rounds) -> list[tuple[str, str, str, str]]:
    """Return the latest verdicts: criterion, value, threshold, rounds met."""
    surveyed = [one for one in rounds if one.HasField("survey") and one.survey.verdicts]
    if not surveyed:
        return []
    return [
        (
            verdict.criterion.replace("_", " "),
            decimal(verdict.value),
            decimal(verdict.threshold),
            f"{verdict.rounds_met}",
        )
        for verdict in surveyed[-1].survey.verdicts
    ]


def _round_row(one: scheduler_pb2.Round) -> dict[str, str]:
    selected = one.candidates.version > 0
    return {
        "number": str(one.number),
        "state": word(scheduler_pb2.RoundState.Name(one.state), "ROUND_STATE_"),
        "labels": f"{one.labels:,}",
        "picks": f"{one.picks:,}",
        "candidates": f"{one.candidates.size:,}" if selected else "–",
        "accuracy": decimal(one.quality.accuracy) if one.HasField("quality") else "–",
        "strategy": one.strategy or ("seed set" if one.number == 0 else "–"),
        "why": one.error or one.strategy_reason,
    }


def _notes(rounds: Rounds) -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for one in rounds:
        for note in one.notes:
            found.setdefault(note, []).append(str(one.number))
    return [(few(numbers), note) for note, numbers in found.items()]


def _annotator_row(one: scheduler_pb2.AnnotatorReport) -> tuple[str, str, str, str, str]:
    agreed = f"{share(one.agreed / one.compared)} of {one.compared:,}" if one.compared else "–"
    return (one.annotator, f"{one.labels:,}", f"{one.skipped:,}", f"{one.cannot_tell:,}", agreed)


def _agreement(material: Material) -> str:
    found = material.oracles
    if found is None:
        return ""
    if not found.several or math.isnan(found.agreement):
        return "No item has several annotations, so nothing can be said of agreement."
    return f"Krippendorff’s alpha is {found.agreement:.2f} over {found.several:,} items with several annotations."


def _llm(material: Material) -> list[tuple[str, str]]:
    if material.oracles is None or not material.oracles.HasField("llm"):
        return []
    llm = material.oracles.llm
    error = "not known: nobody has audited it yet"
    if llm.audited:
        error = f"{share(llm.error_rate)} ({share(llm.error_low)} to {share(llm.error_high)}), {llm.audited:,} audited"
    return [
        ("labelled", f"{llm.labelled:,}"),
        ("left to people", f"{llm.abstained:,}"),
        ("requests", f"{llm.requests:,}"),
        ("tokens in, out", f"{llm.tokens_in:,}, {llm.tokens_out:,}"),
        ("cost", f"{llm.cost:,.2f}"),
        ("error rate", error),
    ]
