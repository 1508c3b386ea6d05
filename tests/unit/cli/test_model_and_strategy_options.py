"""Options of `campaign create` for the model and the strategy, and what campaigns say of them."""

import json

import pytest

from sealpool.cli.campaign_spec import in_options
from sealpool.cli.campaign_views import event_line, rounds_views
from sealpool.cli.rounds import remark_on
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2

CREATE = ("campaign", "create", "c", "--pool", "p", "--class", "a", "--class", "b", "--budget", "500")


def test_a_neural_model_is_told_everything(fakes, cli):
    outcome = cli(
        *(*CREATE, "--model", "mlp", "--retrain", "at_saturation", "--validation-share", "0.2"),
        *("--uncertainty", "mc_dropout", "--uncertainty", "samples=50", "--uncertainty", "temperature=yes"),
        *("--uncertainty", "dropout=0.25", "--neural", "hidden=256,128", "--neural", "dropout=0"),
        *("--neural", "epochs=5", "--neural", "learning_rate=1e-4", "--neural", "precision=mixed"),
    )
    assert outcome.code == 0, outcome.err
    assert fakes.scheduler.campaigns["c"].spec.model == common_pb2.ModelSpec(
        name="mlp",
        class_weight=common_pb2.CLASS_WEIGHT_NONE,
        retrain=common_pb2.RETRAIN_AT_SATURATION,
        validation_share=0.2,
        uncertainty=common_pb2.UncertaintySpec(estimator="mc_dropout", samples=50, temperature=True, dropout=0.25),
        neural=common_pb2.NeuralSpec(
            hidden=[256, 128], dropout=0, epochs=5, learning_rate=1e-4, precision=common_pb2.PRECISION_MIXED
        ),
    )
    assert "mlp, mc_dropout, retrained at_saturation" in cli("campaign", "show", "c").out


def test_a_text_model_is_told_its_encoder_also_one_with_an_equals_sign(fakes, cli):
    outcome = cli(*CREATE, "--model", "transformer", "--text", "encoder=/models/a=b", "--text", "lora_rank=8")
    assert outcome.code == 0, outcome.err
    model = fakes.scheduler.campaigns["c"].spec.model
    assert model.text == common_pb2.TextSpec(encoder="/models/a=b", lora_rank=8)
    assert not model.HasField("neural")
    assert not model.HasField("uncertainty")


def test_a_strategy_is_told_its_options(fakes, cli):
    outcome = cli(
        *(*CREATE, "--strategy", "typiclust", "--neighbors", "7", "--clusters", "30", "--radius", "0.5"),
        *("--aggregate", "max", "--positive-class", "b"),
    )
    assert outcome.code == 0, outcome.err
    assert fakes.scheduler.campaigns["c"].spec.strategy == common_pb2.StrategySpec(
        name="typiclust",
        neighbors=7,
        clusters=30,
        radius=0.5,
        aggregate=common_pb2.LABEL_AGGREGATE_MAX,
        positive_class="b",
    )


def test_what_was_not_said_is_left_to_the_strategy(fakes, cli):
    assert cli(*CREATE).code == 0
    assert fakes.scheduler.campaigns["c"].spec.strategy == common_pb2.StrategySpec(name="entropy")


def test_a_batch_may_be_a_share_of_the_pool(fakes, cli):
    outcome = cli(*CREATE, "--batch-share", "0.015")
    assert "500 labels in batches of 1.5 % of the pool" in outcome.out
    spec = fakes.scheduler.campaigns["c"].spec
    assert (spec.batch_size, spec.batch_share) == (0, 0.015)
    assert "batches of 1.5 % of the pool" in cli("campaign", "show", "c").out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--neural", "epoch=5"), "--neural: 'epoch' is none of its keys; it has hidden, dropout, epochs,"),
        (("--neural", "epochs"), "--neural: 'epochs' is not KEY=VALUE; it has hidden"),
        (("--neural", "epochs=five"), "--neural: epochs: 'five' is not a whole number"),
        (("--neural", "epochs=-1"), "--neural: epochs: '-1' is not a whole number"),
        (("--neural", "epochs=99999999999"), "is not a whole number"),
        (("--neural", "hidden=5,"), "--neural: hidden: '5,' is not whole numbers"),
        (("--neural", "learning_rate=fast"), "learning_rate: 'fast' is not a number"),
        (("--neural", "precision=float64"), "precision: 'float64' is not one of auto, float32, mixed"),
        (("--neural", "epochs=1", "--neural", "epochs=2"), "--neural: epochs is given twice"),
        (("--uncertainty", "laplace", "--uncertainty", "ensemble"), "--uncertainty: estimator is given twice"),
        (("--uncertainty", "temperature=maybe"), "temperature: 'maybe' is not yes or no"),
        (("--text", "encoder"), "--text: 'encoder' is not KEY=VALUE"),
        (("--batch", "5", "--batch-share", "0.5"), "give --batch or --batch-share, not both"),
        (("--aggregate", "median"), "--aggregate"),
    ],
)
def test_a_wrong_value_is_told_by_its_option_and_key(fakes, cli, arguments, complaint):
    outcome = cli(*CREATE, *arguments)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert complaint in line
    assert fakes.scheduler.campaigns == {}


@pytest.mark.parametrize("message", [common_pb2.ModelSpec, common_pb2.StrategySpec, common_pb2.PolicySpec])
def test_every_field_of_the_contract_has_an_option_to_be_told_by(message):
    part = message.__name__.removesuffix("Spec").lower()
    for field in message.DESCRIPTOR.fields:
        inner = field.message_type.fields if field.message_type else [None]
        for one in inner:
            name = f"spec.{part}.{field.name}" + (f".{one.name}" if one else "")
            assert in_options(InvalidArgument(name, "x")).message.startswith("--"), name


def a_round(number, *, strategy="", reason="", notes=()):
    return scheduler_pb2.Round(
        number=number,
        state=scheduler_pb2.ROUND_STATE_FINISHED,
        strategy=strategy,
        strategy_reason=reason,
        notes=notes,
    )


def test_rounds_say_when_something_else_than_the_campaigns_strategy_picked():
    _, *remarks = rounds_views(
        [
            a_round(0, strategy="random"),
            a_round(1, strategy="typiclust", reason="labels of one class only: all 6"),
            a_round(2, strategy="typiclust", reason="labels of one class only: all 9"),
            a_round(3, strategy="margin"),
            a_round(4, strategy="margin"),
            a_round(5),
        ]
    )
    assert remarks == [
        "from round 1 picked by typiclust: labels of one class only: all 6",
        "from round 3 picked by margin",
    ]


def test_a_reason_that_begins_with_the_strategy_does_not_name_it_twice():
    _, remark = rounds_views([a_round(1, strategy="margin", reason="margin: it lowered the error most")])
    assert remark == "from round 1 picked by margin: it lowered the error most"


def test_rounds_of_one_strategy_need_no_remark():
    assert len(rounds_views([a_round(0, strategy="random"), a_round(1, strategy="margin"), a_round(2)])) == 1


def test_what_trainings_did_otherwise_is_said_once_with_its_rounds():
    _, *remarks = rounds_views([a_round(1, notes=["halved", "cut"]), a_round(2), a_round(3, notes=["halved"])])
    assert remarks == ["round 1, 3: halved", "round 1: cut"]


def test_progress_and_events_name_what_picked_where_there_is_a_reason():
    one = a_round(4, strategy="typiclust", reason="labels of one class only")
    assert remark_on(one, 100) == "round 4, typiclust"
    event = scheduler_pb2.WatchCampaignResponse(round_changed=scheduler_pb2.RoundChanged(round=one))
    assert ", picked by typiclust" in event_line(event)
    one.strategy_reason = ""
    assert remark_on(one, 100) == "round 4"


def test_a_word_that_an_option_does_not_have_is_refused_without_the_checkers_own_words(cli):
    outcome = cli(*CREATE, "--retrain", "hot")
    assert outcome.code == 2
    assert outcome.err.startswith("error: Invalid value for '--retrain': 'hot' is not one of 'scratch', ")


def test_a_strategy_under_another_librarys_name_is_said_to_be_ours(fakes, cli):
    fakes.scheduler.strategy = "k_center"
    assert cli(*CREATE, "--strategy", "KCenterGreedy").out.endswith("; KCenterGreedy is k_center\n")
    assert " is k_center" not in cli(*CREATE, "--strategy", "k_center").out


def test_json_has_strategy_reason_and_notes(fakes, cli):
    assert cli(*CREATE, "--oracle", "dataset", "--batch", "500").code == 0
    (one,) = json.loads(cli("campaign", "run", "c", "--json").out)["rounds"]
    assert (one["strategy"], one["strategy_reason"], one["notes"]) == ("", "", [])
