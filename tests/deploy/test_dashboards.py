"""The boards' files: fresh, as Grafana's schema has them, and complete in what each panel says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import boards
from deploy.grafana.reading import FOLDER, panels_of, read_boards, variables_of
from tests.deploy.watched_services import RULES

DEPLOY = FOLDER.parents[1]
DOCUMENTATION = DEPLOY.parent / "docs"
NAMES = ["campaign.json", "fleet.json", "index-server.json", "learner.json"]
GRAFANA_OWN = {"__rate_interval"}


@pytest.fixture(params=NAMES)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_boards()[request.param]


def every_panel() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in read_boards().items():
        for panel in panels_of(board):
            yield f"{name}: {panel['title']}", panel


def test_there_are_four_boards_and_each_is_as_the_code_makes_it() -> None:
    pages = boards.pages()
    assert sorted(Path(path).name for path in pages) == sorted(read_boards()) == NAMES
    for path, text in pages.items():
        assert (DEPLOY / path).read_text() == text, f"{path} is stale: run `make deploy-files`"


def test_a_board_is_read_and_written_by_grafana_s_schema_unchanged(board: dict[str, Any]) -> None:
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert again == board


def test_panels_do_not_overlap_and_rows_are_full(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    lines = {y for _, y in taken}
    assert all((x, y) in taken for x in range(24) for y in lines), "a hole"


def test_every_panel_has_an_id_and_a_title_of_its_own(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels_of(board)]
    assert len(set(titles)) == len(titles)


def test_every_panel_says_what_to_do_with_it_its_unit_and_what_stands_there_when_it_is_empty() -> None:
    known = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}
    for place, panel in every_panel():
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 20 or panel["description"].endswith("."), place
        assert defaults["unit"] in known, place
        assert defaults["noValue"].strip(), place
        assert defaults["thresholds"]["steps"][0]["value"] is None, place
        assert panel["targets"], place


def test_units_go_with_the_metrics() -> None:
    for place, panel in every_panel():
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            expression = target["expr"]
            divided = " / " in expression
            if unit == "percentunit":
                assert divided or re.search("_ratio|:ratio|recommends_stop", expression), place
            if unit == "bytes":
                assert "_bytes" in expression, place
            if unit == "s":
                assert "_seconds" in expression, place
            if unit in ("reqps", "ops"):
                assert "rate(" in expression, place
            assert unit == "bytes" or divided or "_bytes" not in expression, place


def test_every_query_asks_the_chosen_data_source_and_uses_declared_variables(board: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in board["templating"]["list"]}
    asked = [target["expr"] for panel in panels_of(board) for target in panel["targets"]]
    used: set[str] = set()
    for text in [*asked, *(variable["query"] for variable in variables_of(board))]:
        used |= {name for pair in re.findall(r"\$(?:(\w+)|\{(\w+)\})", text) for name in pair if name}
    assert used <= declared | GRAFANA_OWN
    assert declared - {"datasource"} <= used, "a variable that nothing goes by"
    assert not re.findall(r'"uid": "(?!\$\{datasource\}")[^"]*", "type"', json.dumps(board))
    sources = re.findall(r'"datasource": (\{[^}]*\})', json.dumps(board))
    assert {json.loads(source)["uid"] for source in sources if "${" not in source} == set()


def test_every_query_goes_by_the_namespace(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        for target in panel["targets"]:
            if "sealpool_" in target["expr"]:
                assert 'namespace=~"$namespace"' in target["expr"], (panel["title"], target["expr"])


def test_boards_are_named_tagged_and_fresh(board: dict[str, Any]) -> None:
    uids = {name: one["uid"] for name, one in read_boards().items()}
    assert uids == {name: f"sealpool-{name.removesuffix('.json')}" for name in NAMES}
    assert board["tags"] == ["sealpool"]
    assert board["refresh"] == "30s"
    assert board["title"].startswith("sealpool / ")


def test_panels_lead_to_the_page_of_every_alert() -> None:
    pages = {}
    for path in RULES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    pages[rule["alert"]] = rule["annotations"]["runbook_url"]
    links = [link for _, panel in every_panel() for link in panel.get("links", ())]
    led = {(link["title"].removeprefix("Runbook: "), link["url"]) for link in links}
    assert led == set(pages.items()), "a link to no alert, or an alert that no panel leads to"
    missing = [alert for alert in pages if not (DOCUMENTATION / "runbooks" / f"{alert}.md").exists()]
    assert missing == []


def test_the_kustomization_makes_a_labelled_config_map_of_each_board() -> None:
    told = yaml.safe_load((FOLDER.parent / "kustomization.yaml").read_text())
    files = [file for made in told["configMapGenerator"] for file in made["files"]]
    assert sorted(files) == [f"dashboards/{name}" for name in NAMES]
    assert told["generatorOptions"]["labels"]["grafana_dashboard"] == "1"
    largest = max(path.stat().st_size for path in FOLDER.glob("*.json"))
    assert largest < 250_000, "`kubectl apply` keeps a copy in an annotation, which holds 256 KiB"
