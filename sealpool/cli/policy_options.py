"""Options of `campaign create` for the candidate pool: what may be picked."""

from typing import Annotated

import typer

from sealpool.cli.campaign_spec import Fill, Growth
from sealpool.cli.model_options import PICKING_PANEL
from sealpool.cli.options import UINT32_MAX

Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        help="What may be picked: seals (nearest neighbours of labelled items), anchoral (a sub-pool near a few "
        "labelled items of each class), random_subset (a random sub-pool) or full (the whole pool).",
        rich_help_panel=PICKING_PANEL,
    ),
]
K = Annotated[
    int,
    typer.Option(
        "--k",
        min=0,
        help="seals, anchoral: neighbours that a labelled item brings. More finds more and costs more a round. 0: "
        "100, anchoral 50.",
        rich_help_panel=PICKING_PANEL,
    ),
]
MaxCandidates = Annotated[
    int,
    typer.Option(
        "--max-candidates",
        min=0,
        help="seals: the most candidates; those leave that lie farthest from what brought them. 0: no cap of the "
        "campaign's own.",
        rich_help_panel=PICKING_PANEL,
    ),
]
SubpoolSize = Annotated[
    int,
    typer.Option(
        "--subpool-size",
        min=0,
        help="anchoral, random_subset: candidates in the sub-pool. 0: 1,000.",
        rich_help_panel=PICKING_PANEL,
    ),
]
Anchors = Annotated[
    int,
    typer.Option(
        "--anchors", min=0, max=UINT32_MAX, help="anchoral: anchors a class. 0: 10.", rich_help_panel=PICKING_PANEL
    ),
]
GrowthOption = Annotated[
    Growth,
    typer.Option(
        "--growth",
        help="When candidates are added: once a round; or, with seals, also after each pick of a batch, which asks "
        "the index server once a pick.",
        rich_help_panel=PICKING_PANEL,
    ),
]
ExpandFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--expand-from",
        metavar="CLASS",
        help="Only items of this class bring their neighbours; give it once for each. For rare classes: the "
        "candidate pool stays many times smaller at about the same quality. Default: all.",
        rich_help_panel=PICKING_PANEL,
    ),
]
Exploration = Annotated[
    float,
    typer.Option(
        "--exploration",
        min=0,
        max=1,
        help="Share of each batch drawn at random outside the candidates: finds what no neighbour leads to.",
        rich_help_panel=PICKING_PANEL,
    ),
]
FillOption = Annotated[
    Fill,
    typer.Option(
        "--fill",
        help="What fills a batch when candidates run short: random items, or nothing.",
        rich_help_panel=PICKING_PANEL,
    ),
]
