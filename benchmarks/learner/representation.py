"""TypiClust and BADGE, each beside the peers that have it."""

from benchmarks.learner import peers
from benchmarks.learner.beside import Peer, add_beside
from benchmarks.learner.workbench import BATCH, Workbench
from benchmarks.report import Figure
from learner.options import StrategyOptions

_NEIGHBORS = 20
"""Of TypiClust: its paper's number, and our default; the peer's default is 5."""


def measure_typiclust(bench: Workbench, figure: Figure) -> None:
    """Measure with as few labels as it is meant for, so that both make the same number of clusters."""
    items, labelled = bench.share(100_000), BATCH
    lens = bench.lens(bench.source(items), labelled=labelled)
    ours = bench.picker("typiclust", items, lens=lens, options=StrategyOptions(name="typiclust", neighbors=_NEIGHBORS))
    peer = Peer(
        name=peers.SCIKIT_ACTIVEML,
        make=lambda: peers.scikit_activeml_typiclust(bench, items, labelled=labelled, neighbors=_NEIGHBORS),
        repetitions=2,
        bound=5,
    )
    add_beside(bench, figure, f"{items:,} candidates, batch {BATCH}, {labelled} labelled", ours, [peer])


def measure_badge(bench: Workbench, figure: Figure) -> None:
    """Measure with the vectors as the last layer's features, as a linear model has them."""
    items = bench.share(100_000)
    add_beside(
        bench,
        figure,
        f"{items:,} candidates, batch {BATCH}",
        bench.picker("badge", items),
        [
            Peer(name=peers.SMALL_TEXT, make=lambda: peers.small_text_badge(bench, items), repetitions=2, bound=5),
            Peer(
                name=peers.SCIKIT_ACTIVEML,
                make=lambda: peers.scikit_activeml_badge(bench, items),
                repetitions=1,
                bound=5,
            ),
        ],
    )
