"""Campaigns in YAML files, and the options that fill whole messages of the spec."""

import json

import pytest
import typer

from sealpool.cli.campaign_file import read_spec, to_yaml
from sealpool.cli.labelling_options import (
    annotation_spec,
    evaluation_spec,
    llm_spec,
    seeding_spec,
    stopping_spec,
    stream_spec,
)
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2

SPAM = """
name: spam
pool: mails
task: binary
classes: ["no", "yes"]
strategy: {name: power_bald, beta: 0}
batch_size: 50
budget: 1000
seed_size: 100
rule: {after_labels: 50, cron: "0 6 * * *"}
seeding: {kind: queries, queries: [cheap pills, "free money"], encoder: mini}
stopping: {kappa: 0.99, complete: true}
oracle:
  name: llm
  llm:
    model: some-model
    examples: 0
    definitions: [{name: "yes", definition: unasked advertising}]
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "campaign.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def test_a_file_says_what_the_contract_says_in_short_words(write):
    spec = read_spec(write(SPAM))
    assert spec.task == common_pb2.TASK_KIND_BINARY
    assert list(spec.classes) == ["no", "yes"]
    assert spec.strategy.HasField("beta")
    assert spec.seeding.kind == scheduler_pb2.SEEDING_KIND_QUERIES
    assert spec.seeding.encoder == learner_pb2.EmbedHeader(encoder="mini", normalize=True)
    assert spec.oracle.llm.HasField("examples")
    assert spec.oracle.llm.definitions[0].definition == "unasked advertising"


def test_a_spec_written_as_yaml_reads_back_the_same(write):
    spec = read_spec(write(SPAM))
    assert read_spec(write(to_yaml(spec))) == spec
    assert "UNSPECIFIED" not in to_yaml(spec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: 3", "name: 3 is not a text: put it in quotes"),
        ("classes: [yes, no]", "classes: True is not a text: put it in quotes"),
        ("task: many", "task: 'many' is none of binary, multiclass, multilabel"),
        ("pools: a", "pools: no such field; there are name, pool, task"),
        ("rule: often", "rule: 'often' is not a mapping of after_labels"),
        ("seeding: {encoder: {depth: 1}}", "seeding.encoder.depth: no such field"),
        ("name: a\nname: b", "'name' is given twice"),
        ("budget: many", "budget"),
        ("budget: -1", "budget"),
        ("batch_size: 1.5", "batch_size"),
        ("stopping: {complete: perhaps}", "stopping.complete"),
        ("- a", "is not a mapping of a campaign's fields"),
        ("name: [", "is not YAML"),
    ],
)
def test_what_a_file_says_wrong_is_told_with_file_and_field(write, text, says):
    path = write(text)
    with pytest.raises(InvalidArgument) as caught:
        read_spec(path)
    assert str(path) in caught.value.message
    assert says in caught.value.message


def test_applying_a_file_begins_the_campaign_once_and_then_changes_it(fakes, cli, write):
    path = write(SPAM)
    assert json.loads(cli("campaign", "apply", str(path), "--json").out) == {
        "campaign": "spam",
        "begins": True,
        "changed": [],
        "done": True,
    }
    assert "nothing to do" in cli("campaign", "apply", str(path)).out
    write(SPAM.replace("budget: 1000", "budget: 2000"))
    assert "changed: budget" in cli("campaign", "apply", str(path)).out
    assert fakes.scheduler.campaigns["spam"].spec.budget == 2000
    write(SPAM.replace("pool: mails", "pool: others"))
    outcome = cli("campaign", "apply", str(path))
    assert outcome.code == 1
    assert "spec.pool: cannot change" in outcome.err


def test_validating_a_file_begins_and_changes_nothing(fakes, cli, write):
    path = write(SPAM)
    assert "would begin" in cli("campaign", "validate", str(path)).out
    assert fakes.scheduler.campaigns == {}
    cli("campaign", "apply", str(path))
    write(SPAM.replace("budget: 1000", "budget: 2000"))
    assert "would change: budget" in cli("campaign", "validate", str(path)).out
    assert fakes.scheduler.campaigns["spam"].spec.budget == 1000


def test_a_campaign_shown_as_yaml_can_be_applied(fakes, cli, write):
    cli("campaign", "apply", str(write(SPAM)))
    shown = cli("campaign", "show", "spam", "--yaml")
    assert read_spec(write(shown.out)) == fakes.scheduler.campaigns["spam"].spec


def test_options_of_one_message_are_pairs(tmp_path):
    seeding = seeding_spec(["queries", "queries=one, two", "queries=three", "encoder=e", "encoder.pooling=cls"])
    assert seeding is not None
    assert list(seeding.queries) == ["one, two", "three"]
    assert seeding.encoder.pooling == learner_pb2.POOLING_CLS
    assert annotation_spec(["annotations=3", "agreement=dawid_skene"]) == scheduler_pb2.AnnotationSpec(
        annotations=3, agreement=scheduler_pb2.AGREEMENT_DAWID_SKENE
    )
    assert evaluation_spec(["items=300"]) == scheduler_pb2.EvaluationSpec(items=300)
    assert stopping_spec(["kappa=.99", "complete=yes"]) == scheduler_pb2.StoppingSpec(kappa=0.99, complete=True)
    assert stream_spec(["horizon=1000000", "threshold=budgeted"]) == scheduler_pb2.StreamSpec(
        horizon=1_000_000, threshold=scheduler_pb2.STREAM_THRESHOLD_BUDGETED
    )
    assert seeding_spec(None) is None
    (tmp_path / "words.txt").write_text("Look closely.", encoding="utf-8")
    spec = llm_spec([f"instructions=@{tmp_path / 'words.txt'}", "examples=0"], ["yes=a = b"])
    assert spec is not None
    assert (spec.instructions, spec.HasField("examples")) == ("Look closely.", True)
    assert spec.definitions[0] == scheduler_pb2.ClassDefinition(name="yes", definition="a = b")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (["kind=often"], "kind: 'often' is not one of random, examples"),
        (["positives"], "kind: 'positives' is not one of"),
        (["positives=x"], "positives: 'x' is not a whole number"),
        (["positives=1", "positives=2"], "positives is given twice"),
        (["sort=1"], "'sort' is none of its keys"),
        (["encoder.sort=1"], "'encoder.sort' is none of its keys"),
        (["queries=@/no/such/file"], "queries: /no/such/file: No such file"),
    ],
)
def test_wrong_pairs_are_told_with_their_key(told, says):
    with pytest.raises(typer.BadParameter, match=says):
        seeding_spec(told)


def test_a_definition_needs_a_class_and_a_text():
    with pytest.raises(InvalidArgument, match="--define: 'spam' is not CLASS=TEXT"):
        llm_spec(None, ["spam"])
