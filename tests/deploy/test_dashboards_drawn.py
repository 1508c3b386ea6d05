"""Rows of the boards drawn without a Grafana."""

from pathlib import Path

import pytest

from deploy.grafana.draw import Source, draw
from deploy.grafana.drawing import Curve, draw_panels
from deploy.grafana.reading import panels_of, read_boards
from tests.deploy.prometheus_server import SCRAPE_S
from tests.deploy.watched_services import Seen

PNG = b"\x89PNG"


@pytest.fixture
def source(seen: Seen) -> Source:
    return Source(url=seen.prometheus.url, start=seen.fresh_at, end=seen.ended_at, scrape_s=SCRAPE_S)


def test_the_candidate_pool_row_is_drawn_from_what_prometheus_saw(source: Source, tmp_path: Path) -> None:
    draw(source, "campaign", "Candidate pool", tmp_path / "row.png")
    drawn = (tmp_path / "row.png").read_bytes()
    draw_panels(
        "empty",
        [(panel, []) for panel in panels_of(read_boards()["campaign.json"], row="Candidate pool")],
        tmp_path / "empty.png",
    )
    assert drawn.startswith(PNG)
    assert len(drawn) > 2 * (tmp_path / "empty.png").stat().st_size


def test_curves_are_named_by_the_panel_s_legend(source: Source) -> None:
    curves = source.curves("sealpool_scheduler_round_number", "{{campaign}} of {{namespace}}")
    assert sorted(curve.name for curve in curves) == [f"{name} of sealpool" for name in ("digits", "model", "people")]
    digits = next(curve for curve in curves if curve.name.startswith("digits"))
    assert isinstance(digits, Curve)
    assert digits.values[-1] > digits.values[0]


def test_a_row_that_a_board_has_not_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row 'Nothing'"):
        draw(source, "campaign", "Nothing", tmp_path / "row.png")
