"""Commands about what annotators said, and their tasks."""

import json


def begin(cli):
    assert cli("campaign", "create", "c", "--pool", "p", "--class", "no", "--class", "yes", "--budget", "9").code == 0


def test_the_history_shows_what_everyone_said_of_an_item(fakes, cli):
    begin(cli)
    text = cli("labels", "history", "c").out
    assert "yes" in text
    assert "cannot tell" in text
    assert "[torn]" in text
    assert "item" in text
    assert "item" not in cli("labels", "history", "c", "b").out
    lines = cli("labels", "history", "c", "b", "--json").out.splitlines()
    assert [json.loads(line)["annotator"] for line in lines] == ["bob"]
    assert cli("labels", "history", "c", "nowhere").err.strip() == "nothing was said yet"


def test_a_review_shows_doubted_labels_and_says_how_to_answer(fakes, cli):
    begin(cli)
    shown = cli("labels", "review", "c", "--show-only").out
    assert "no 0.75" in shown
    assert "tasks made" not in shown
    assert "1 tasks made: label them with sealpool label c" in cli("labels", "review", "c").out


def test_the_oracles_of_a_campaign_are_told_with_agreement_and_cost(fakes, cli):
    begin(cli)
    text = cli("campaign", "oracles", "c").out
    assert "75.0 % of 4" in text
    assert "alpha 0.500" in text
    assert "cost 1.50" in text
    assert "25.0 % (0.0 % to 70.0 %, 95 %): 1 of 4 labels" in text
    assert json.loads(cli("campaign", "oracles", "c", "--json").out)["llm"]["requests"] == 5


def test_tasks_are_given_back_and_taken_with_the_models_guess(fakes, cli):
    begin(cli)
    assert "2 tasks given back" in cli("tasks", "release", "c", "-a", "ann").out
    assert fakes.scheduler.released == ["ann"]
    fakes.scheduler.tasks[0].predictions.add(name="yes", probability=0.875)
    assert "yes 0.88" in cli("tasks", "next", "c", "--guess").out
    assert fakes.scheduler.leased[-1].include_predictions
