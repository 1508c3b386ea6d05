"""`sealpool strategies` and `sealpool models`."""

import json

import pytest

from sealpool.cli.vocabulary import FamilyName
from sealpool.vocabulary.models import ESTIMATORS, MODELS
from sealpool.vocabulary.strategies import STRATEGIES, Family


def words_of(text):
    """Return a text without the breaks and runs of blanks of its layout."""
    return " ".join(text.split())


@pytest.mark.parametrize("columns", ["80", "120", "200"])
def test_strategies_lists_each_with_its_family_needs_and_reference(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    outcome = cli("strategies")
    assert outcome.code == 0
    assert max(map(len, outcome.out.splitlines()[:-1])) <= int(columns)
    told = words_of(outcome.out)
    for entry in STRATEGIES.values():
        assert f"{entry.name} " in told
    for family in Family:
        assert family.value in {line.rstrip() for line in outcome.out.splitlines()}
    if columns == "200":
        for entry in STRATEGIES.values():
            for said in (entry.summary, entry.reference, *entry.aliases):
                assert said in told


def test_strategies_says_what_each_needs(cli):
    told = cli("strategies").out
    assert "needs a trained model, posterior samples; binary, multiclass only" in told
    assert "needs the labelled items, the labels' classes, the class looked for" in told
    assert "needs nothing" in told


@pytest.mark.parametrize("family", FamilyName)
def test_strategies_of_one_family(cli, family):
    names = [one["name"] for one in json.loads(cli("strategies", "--family", family.value, "--json").out)["strategies"]]
    assert names == [one.name for one in STRATEGIES.values() if one.family is family.family]
    assert {name.family for name in FamilyName} == set(Family)


def test_strategies_as_json_are_complete(cli):
    listed = json.loads(cli("strategies", "--json").out)["strategies"]
    assert [one["name"] for one in listed] == list(STRATEGIES)
    (bald,) = [one for one in listed if one["name"] == "batch_bald"]
    assert bald["family"] == "committee and Bayesian"
    assert bald["needs"] == ["a trained model", "posterior samples"]
    assert bald["tasks"] == ["binary", "multiclass"]
    assert bald["aliases"] == ["BatchBALDHeuristic"]


@pytest.mark.parametrize("name", ["k_center", "GreedyCoreset", "KCENTERGREEDY", "k-center"])
def test_one_strategy_is_shown_in_full_by_any_of_its_names(cli, name):
    outcome = cli("strategies", name)
    assert outcome.out.splitlines()[0].strip() == "k_center"
    for words in ("Sener and Savarese, ICLR 2018", "O(n·m·d)", "FarthestFirst", "every task"):
        assert words in outcome.out
    assert json.loads(cli("strategies", name, "--json").out)["name"] == "k_center"


def test_an_unknown_strategy_is_told_what_was_meant(cli):
    outcome = cli("strategies", "margn")
    assert (outcome.code, "'margn' is no query strategy; did you mean margin?" in outcome.err) == (2, True)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_models_lists_models_and_estimators(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    told = words_of(cli("models").out)
    for entry in (*MODELS.values(), *ESTIMATORS.values()):
        assert entry.name in told
        assert words_of(entry.reference) in told
    assert "--l2, --max-iterations" in told
    assert "--neural (not hidden)" in told
    assert "--text (encoder, lora_rank, max_tokens)" in told


def test_models_as_json_are_complete(cli):
    told = json.loads(cli("models", "--json").out)
    assert [one["name"] for one in told["models"]] == list(MODELS)
    assert {one["name"]: one["posterior_samples"] for one in told["estimators"]} == {
        name: entry.draws for name, entry in ESTIMATORS.items()
    }
    assert {one["name"] for one in told["models"] if one["reads_text"]} == {"cnn", "bilstm", "transformer"}
