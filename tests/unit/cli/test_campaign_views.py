"""What `campaign show` tells of campaigns and rounds."""

import io

from rich.console import Console

from sealpool.cli.campaign_views import campaign_facts, rounds_views
from sealpool.v1 import common_pb2, scheduler_pb2


def drawn(*parts, width=140):
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part, markup=False)
    return console.file.getvalue()


def finished(number, **more):
    return scheduler_pb2.Round(number=number, state=scheduler_pb2.ROUND_STATE_FINISHED, **more)


def test_columns_that_no_round_has_anything_for_are_left_out():
    text = drawn(*rounds_views([finished(0), finished(1)]))
    assert "accuracy" in text
    for absent in ("ECE", "tested accuracy", "doubt", "changed", "state"):
        assert absent not in text


def test_a_survey_and_a_test_show_with_their_round_and_the_latest_advice_under_the_table():
    surveys = [
        scheduler_pb2.Survey(mean_uncertainty=0.5, kappa=float("nan"), classification_change=float("nan")),
        scheduler_pb2.Survey(
            mean_uncertainty=0.25, classification_change=0.125, recommends_stop=True, reason="kappa was 0.99 " * 10
        ),
    ]
    test = scheduler_pb2.ActiveTest(points=9, accuracy=0.75, accuracy_low=0.7, accuracy_high=0.8)
    measured = common_pb2.Quality(accuracy=0.9, expected_calibration_error=0.0625)
    text = drawn(
        *rounds_views(
            [finished(1, survey=surveys[0]), finished(2, survey=surveys[1], active_test=test, quality=measured)]
        )
    )
    assert "0.500" in text
    assert "12.5 %" in text
    assert "0.062" in text
    assert "0.750 (0.700 to 0.800)" in text
    assert "after round 2 more labels seem not to help: kappa was 0.99" in text
    assert max(map(len, text.splitlines())) <= 140


def test_a_campaign_that_is_tested_or_surveyed_is_still_whole_in_eighty_columns():
    test = scheduler_pb2.ActiveTest(points=9, accuracy=0.986, accuracy_low=0.959, accuracy_high=1.013)
    measured = common_pb2.Quality(accuracy=0.927, expected_calibration_error=0.0625)
    survey = scheduler_pb2.Survey(mean_uncertainty=0.072, classification_change=0.017)
    candidates = common_pb2.CandidatePoolInfo(version=1, size=2_240, pool_share=0.747)
    tested = finished(1, labels=100, active_test=test, candidates=candidates)
    surveyed = finished(1, labels=100, quality=measured, survey=survey, candidates=candidates)
    for one, words in ((tested, "0.986 (0.959 to 1.013)"), (surveyed, "0.062 0.072   1.7 %")):
        heads, _, row, *_ = drawn(*rounds_views([one]), width=80).splitlines()
        assert heads.startswith("round labels candidates  share")
        assert row.rstrip().endswith(words)


def test_a_round_that_failed_says_how_it_stands_and_why():
    failed = scheduler_pb2.Round(number=2, state=scheduler_pb2.ROUND_STATE_FAILED, error="training: no label")
    text = drawn(*rounds_views([finished(1), failed]))
    assert "failed" in text
    assert "round 2: training: no label" in text


def test_a_campaign_tells_why_it_stands_still_and_what_costs_its_budget():
    campaign = scheduler_pb2.Campaign(
        spec=scheduler_pb2.CampaignSpec(
            name="c",
            budget=100,
            oracle=scheduler_pb2.OracleSpec(name="llm", llm=scheduler_pb2.LlmSpec(model="some-model")),
            evaluation=scheduler_pb2.EvaluationSpec(items=20, test_pool=50, test_points=5),
        ),
        state=scheduler_pb2.CAMPAIGN_STATE_PAUSED,
        state_reason="1,000 tokens are spent",
        labels=30,
        evaluation_labels=10,
        given_up=2,
        open_tasks=4,
        review_tasks=3,
    )
    text = drawn(campaign_facts(campaign))
    assert "paused: 1,000 tokens are spent" in text
    assert "40 of 100, 10 of them held out; 2 items given up" in text
    assert "4 open, 0 leased; 3 for evaluation or review" in text
    assert "some-model, and people where it cannot tell" in text
    assert "20 items of the pool and 5 test points a round, actively chosen" in text
