"""A campaign with something of everything that a report shows."""

import math

from sealpool.report.reading import History, Material, Pick
from sealpool.v1 import common_pb2, scheduler_pb2

CLASSES = ["arts & crafts", "biology", "<b>chemistry</b>"]


def spec() -> scheduler_pb2.CampaignSpec:
    return scheduler_pb2.CampaignSpec(
        name="abstracts",
        pool="arxiv",
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        batch_size=50,
        seed_size=50,
        budget=500,
        strategy=common_pb2.StrategySpec(name="margin"),
        policy=common_pb2.PolicySpec(name="seals", k=100),
        exploration=0.1,
        oracle=scheduler_pb2.OracleSpec(name="llm"),
        evaluation_pool="held-out",
    )


def a_round(number: int) -> scheduler_pb2.Round:
    labels = 50 * number
    one = scheduler_pb2.Round(
        number=number,
        state=scheduler_pb2.ROUND_STATE_FINISHED,
        labels=labels,
        picks=50,
        strategy="margin" if number else "",
        strategy_reason="auto: the cheapest that fits" if number == 1 else "",
        class_counts=[labels // 2, labels // 3, labels - labels // 2 - labels // 3],
        origin_counts=[0, 35 + min(number, 15), max(0, 15 - number)] if number else [0, 0, 0, 0, 50],
        notes=["there is one label only of 'biology'"] if number in (1, 2) else [],
    )
    one.seconds.expand, one.seconds.train, one.seconds.score = 0.2 + 0.05 * number, 0.1 * number, 0.03
    one.seconds.evaluate, one.seconds.total = 0.05, 0.6 + 0.16 * number
    if number:
        one.candidates.version, one.candidates.size = number, 900 * number
        one.candidates.pool_share = 0.009 * number
        one.quality.items, one.quality.accuracy = 400, 0.9 - 0.4 / number
        one.quality.macro_f1 = 0.87 - 0.45 / number
        one.active_test.points, one.active_test.accuracy = 40 * number, 0.88 - 0.35 / number
        one.active_test.accuracy_low = one.active_test.accuracy - 0.3 / number
        one.active_test.accuracy_high = one.active_test.accuracy + 0.3 / number
        survey = one.survey
        survey.items = 1000
        survey.uncertainty_counts.extend(
            int(2000 * math.exp(-((place - 16 + 1.5 * number) ** 2) / 18)) for place in range(20)
        )
        verdict = survey.verdicts.add(criterion="kappa", value=0.9 + 0.01 * number, threshold=0.97, rounds_met=0)
        survey.recommends_stop = number >= 8
        if survey.recommends_stop:
            verdict.rounds_met = 3
            survey.reason = "kappa was at least 0.97 in 3 rounds"
    return one


def material(rounds: int = 9) -> Material:
    """Return that campaign after some rounds."""
    oracles = scheduler_pb2.GetOracleReportResponse(agreement=0.71, several=120)
    oracles.annotators.add(annotator="ada", labels=210, skipped=4, cannot_tell=2, compared=90, agreed=84)
    oracles.annotators.add(annotator="llm:gpt-4.1", labels=240)
    oracles.llm.CopyFrom(
        scheduler_pb2.LlmReport(
            requests=300, tokens_in=120_000, tokens_out=4_000, cost=1.25, labelled=240, abstained=20, audited=50,
            errors=4, error_rate=0.08, error_low=0.03, error_high=0.19,
        )
    )  # fmt: skip
    return Material(
        campaign=scheduler_pb2.Campaign(
            spec=spec(), state=scheduler_pb2.CAMPAIGN_STATE_ACTIVE, labels=450, rounds=rounds, open_tasks=50, given_up=1
        ),
        rounds=[a_round(number) for number in range(rounds)],
        history=History(labels=450, corrections=7, unsolicited=3, skips=4, cannot_tell=2),
        picks=[
            Pick(
                item_id="2103.00001v2",
                round=8,
                classes=["biology"],
                annotator="ada",
                text="<script>alert(1)</script> We study how cells fold under pressure, and find " + "that " * 20 + "…",
            ),
            Pick(item_id="2103.00002", round=8, classes=[], annotator="llm:gpt-4.1", text=""),
        ],
        oracles=oracles,
        missing=[],
    )
