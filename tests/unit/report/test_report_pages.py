"""The report: everything on one page that loads nothing, and a sentence where something is missing."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealpool.errors import NotFound, SealpoolError, Unavailable
from sealpool.report.charts import Series, heat_strips, line_chart, stacked_bars
from sealpool.report.page import render
from sealpool.report.reading import History, read_material
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import scheduler_pb2
from tests.unit.report.material import a_round, material, spec

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
BLANK = History(labels=0, corrections=0, unsolicited=0, skips=0, cannot_tell=0)


class Tags(HTMLParser):
    """Checks that tags are closed in order, and gathers them with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = render(material(), written_at=NOW)
    tags = Tags(page).seen
    assert sum(tag == "svg" for tag, _ in tags) == 7
    assert not {"link", "script", "img", "iframe", "object"} & {tag for tag, _ in tags}
    assert not [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert not re.search(r"https?://|url\(|@import", page)
    for words in (
        "2026-03-04 05:06 UTC",
        "Krippendorff’s alpha is 0.71",
        "8.0 % (3.0 % to 19.0 %), 50 audited",
        "3, candidate: 38",
        "3, exploration: 12",
        "0, seed: 50",
    ):
        assert words in page


def test_names_and_texts_of_users_are_shown_and_not_obeyed() -> None:
    page = render(material(), written_at=NOW)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>chemistry" not in page
    assert page.count("&lt;b&gt;chemistry&lt;/b&gt;") >= 2  # the legend, and in each bar's hint


def test_a_campaign_without_anything_is_all_sentences() -> None:
    bare = replace(
        material(0),
        campaign=scheduler_pb2.Campaign(spec=spec()),
        history=BLANK,
        picks=[],
        oracles=None,
        missing=["Who labelled how much is not known: it is away."],
    )
    page = render(bare, written_at=NOW)
    assert not [tag for tag, _ in Tags(page).seen if tag == "svg"]
    for sentence in (
        "No round was measured",
        "No round has picked from candidates yet",
        "No round has begun with labels yet",
        "No survey was made",
        "No round has finished yet",
        "The campaign has no stopping criteria",
        "No round has begun yet",
        "No item that was picked has a label yet",
        "Nobody is known to have labelled anything yet",
        "Who labelled how much is not known: it is away.",
    ):
        assert sentence in page


def test_figures_that_have_no_meaning_are_dashes() -> None:
    one = a_round(3)
    one.quality.accuracy = one.quality.macro_f1 = math.nan
    one.survey.verdicts[0].value = math.nan
    one.ClearField("active_test")
    page = render(replace(material(), rounds=[one]), written_at=NOW)
    assert "nan" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL).lower()


class Services:
    """The scheduler and the index server, some of whose answers are errors."""

    def __init__(self, **errors: SealpoolError) -> None:
        self.errors = errors

    def _meet(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        self._meet("get_campaign")
        return scheduler_pb2.Campaign(spec=spec())

    def list_rounds(self, campaign: str) -> list[scheduler_pb2.Round]:
        return []

    def list_labels(self, campaign: str) -> Iterator[scheduler_pb2.Label]:
        for number in range(20):
            yield scheduler_pb2.Label(item_id=f"i{number}", round=number // 10, classes=["biology"])
        yield scheduler_pb2.Label(item_id="i3", round=1, corrects=True, classes=["arts & crafts"])
        yield scheduler_pb2.Label(item_id="other", unsolicited=True, classes=["biology"])

    def list_annotations(self, campaign: str) -> Iterator[scheduler_pb2.Annotation]:
        self._meet("list_annotations")
        yield scheduler_pb2.Annotation(outcome=scheduler_pb2.ANNOTATION_OUTCOME_SKIP)
        yield scheduler_pb2.Annotation(outcome=scheduler_pb2.ANNOTATION_OUTCOME_CANNOT_TELL)
        yield scheduler_pb2.Annotation(outcome=scheduler_pb2.ANNOTATION_OUTCOME_SKIP)

    def get_oracle_report(self, campaign: str) -> scheduler_pb2.GetOracleReportResponse:
        self._meet("get_oracle_report")
        return scheduler_pb2.GetOracleReportResponse()

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        self._meet("get_items")
        found = [ItemId(item_id) for item_id in ids if item_id != "i19"]
        return Items(ids=found, payloads=[Payload(text=f"about\n {item_id} " * 40) for item_id in found])


def test_the_latest_picks_come_with_the_beginning_of_their_texts() -> None:
    services = Services()
    found = read_material("c", services, services)
    assert [pick.item_id for pick in found.picks][:3] == ["i3", "i19", "i18"]
    assert found.picks[0].text.startswith("about i3 about i3")
    assert found.picks[0].text.endswith("…")
    assert found.picks[1].text == ""
    assert len(found.picks) == 12
    assert found.history == History(labels=21, corrections=1, unsolicited=1, skips=2, cannot_tell=1)
    assert found.missing == []


def test_what_cannot_be_had_is_said_and_the_rest_is_shown() -> None:
    away = Unavailable("the index server is away")
    services = Services(get_items=away, list_annotations=away, get_oracle_report=away)
    found = read_material("c", services, services)
    assert len(found.missing) == 3
    assert found.oracles is None
    assert found.picks[0].text == ""
    assert "the index server is away" in render(found, written_at=NOW)


def test_a_campaign_that_is_not_there_is_an_error() -> None:
    services = Services(get_campaign=NotFound("campaign", "c"))
    with pytest.raises(NotFound):
        read_material("c", services, services)


def words(value: float) -> str:
    return f"{value:.2f}"


@given(
    points=st.lists(
        st.tuples(st.floats(0, 1e9), st.one_of(st.floats(-1, 1e6), st.just(math.nan))), max_size=8, unique=True
    ),
    spread=st.floats(0, 10),
)
def test_lines_of_any_numbers_stay_inside_their_chart(points: list[tuple[float, float]], spread: float) -> None:
    series = Series(name="a & b", points=points, intervals=[(y - spread, y + spread) for _, y in points])
    svg = line_chart("t", [series], x_title="x", words=words)
    if not any(math.isfinite(y) for _, y in points):
        assert svg == ""
        return
    root = ET.fromstring(svg)
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    for circle in root.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert -1 <= float(circle.attrib["cy"]) <= height


def test_rounds_are_counted_in_whole_numbers() -> None:
    svg = line_chart("t", [Series(name="a", points=[(1, 5.0), (3, 6.0)])], x_title="round", words=words)
    marks = [text.text for text in ET.fromstring(svg).iter("text") if text.attrib["y"] == "246.0"]
    assert marks == ["1", "2", "3"]


def test_five_hundred_rounds_are_lines_and_strips_that_fit_a_screen() -> None:
    series = Series(name="a", points=[(number, 1.0) for number in range(500)])
    assert "circle" not in line_chart("t", [series], x_title="x", words=words)
    strips = ET.fromstring(
        heat_strips("t", [(str(number), [1, 2]) for number in range(500)], x_title="x", ends=("l", "r"))
    )
    assert float(strips.attrib["viewBox"].split()[3]) < 700
    hints = [title.text or "" for title in strips.iter("title")]
    assert hints[0].startswith("0:")
    assert hints[-1].startswith("499:")


def test_bars_stand_on_one_another_and_their_heights_are_their_values() -> None:
    svg = stacked_bars("t", [("0", [1.0, 3.0]), ("1", [2.0, 0.0])], ["a", "b"], x_title="x", words=words)
    first, second, third = ET.fromstring(svg).iter("rect")
    assert float(second.attrib["height"]) == pytest.approx(3 * float(first.attrib["height"]), abs=0.3)
    assert float(third.attrib["height"]) == pytest.approx(2 * float(first.attrib["height"]), abs=0.3)
    assert float(second.attrib["y"]) + float(second.attrib["height"]) == pytest.approx(
        float(first.attrib["y"]), abs=0.2
    )
    assert stacked_bars("t", [("0", [0.0])], ["a"], x_title="x", words=words) == ""


def test_the_fullest_bin_is_the_darkest() -> None:
    svg = heat_strips("t", [("1", [1, 0, 4]), ("2", [0, 0, 0])], x_title="x", ends=("l", "r"))
    opacities = [float(rect.attrib["fill-opacity"]) for rect in ET.fromstring(svg).iter("rect")]
    assert opacities == [pytest.approx(0.31), 1.0]
    assert heat_strips("t", [], x_title="x", ends=("l", "r")) == ""
