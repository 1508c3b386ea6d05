"""What `sealpool embed` reads and writes, and what it goes on with."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sealpool.cli.embed import Embedding
from sealpool.cli.embed_inputs import look_through
from sealpool.cli.embed_output import EmbedOutput
from sealpool.cli.records import read_chunks
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable

ROWS = [
    {"id": "a", "text": "one", "labels": ["x"], "split": "train", "price": 3, "more": {"k": 1}},
    {"id": "b", "text": "two", "labels": ["x", "y"], "price": 4.5, "more": "text", "sold": True},
    {"id": "c", "text": "three", "uri": "http://c", "nothing": None, "huge": 1 << 70},
]


def write_jsonl(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


class Learner:
    """Turns an item into (its length, its first byte, which of all it was); fails at the items it is told."""

    def __init__(self) -> None:
        self.items: list[str | bytes] = []
        self.fails: dict[str, Exception] = {}

    def __call__(self, items: Iterable[str | bytes]) -> Iterator[np.ndarray]:
        for item in items:
            if isinstance(item, str) and item in self.fails:
                raise self.fails.pop(item)
            self.items.append(item)
            yield np.array([[len(item), ord(item[:1]), len(self.items)]], np.float32)


@pytest.fixture
def learner() -> Learner:
    return Learner()


@pytest.fixture
def embed(learner: Learner) -> Callable[..., Embedding]:
    def call(source: Path, output: Path, *, part_rows: int = 2, half: bool = False, encoder: str = "e") -> Embedding:
        found = look_through(source)
        description = {"input": found.digest, "encoder": encoder, "half": half, "part_rows": part_rows}
        target = EmbedOutput(path=output, description=description, columns=found.columns, half=half)
        work = Embedding(source=found, output=target, part_rows=part_rows, turn=learner, wait_s=1)
        work.run()
        return work

    return call


def test_columns_are_carried_with_types_that_fit_every_row(tmp_path: Path, embed) -> None:
    embed(write_jsonl(tmp_path / "in.jsonl", *ROWS), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert table.column("vector").to_pylist() == [[3, 111, 1], [3, 116, 2], [5, 116, 3]]
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[3]"
    assert table.column("price").to_pylist() == [3.0, 4.5, None]
    assert table.column("labels").to_pylist() == [["x"], ["x", "y"], None]
    assert table.column("more").to_pylist() == ['{"k": 1}', '"text"', None]
    assert table.column("sold").to_pylist() == [None, True, None]
    assert table.column("nothing").to_pylist() == [None] * 3
    assert table.column("huge").to_pylist() == [None, None, str(1 << 70)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.parquet"]


@pytest.mark.parametrize("half", [False, True])
def test_what_is_written_can_be_ingested(tmp_path: Path, embed, half: bool) -> None:
    embed(write_jsonl(tmp_path / "in.jsonl.gz", *ROWS), tmp_path / "out.parquet", half=half)
    (chunk,) = read_chunks(tmp_path / "out.parquet")
    assert [(record.id, record.text, record.uri) for record in chunk.records] == [
        ("a", "one", ""),
        ("b", "two", ""),
        ("c", "three", "http://c"),
    ]
    assert chunk.records[1].labels == ("x", "y")
    assert chunk.records[0].metadata["price"] == 3.0
    np.testing.assert_array_equal(chunk.vectors, [[3, 111, 1], [3, 116, 2], [5, 116, 3]])
    assert chunk.vectors.dtype == np.float32


def test_a_directory_holds_parts_that_read_as_one_table(tmp_path: Path, embed) -> None:
    embed(write_jsonl(tmp_path / "in.jsonl", *ROWS), tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_an_interrupted_embedding_goes_on_with_the_part_that_it_lacks(
    tmp_path: Path, embed, learner: Learner, output: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *({"id": str(n), "text": f"text {n}"} for n in range(7)))
    learner.fails["text 5"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        embed(source, tmp_path / output)
    work = embed(source, tmp_path / output)
    assert (work.there, work.embedded) == (4, 3)
    assert learner.items == [f"text {n}" for n in (0, 1, 2, 3, 4, 4, 5, 6)]
    assert pq.read_table(tmp_path / output).column("id").to_pylist() == [str(n) for n in range(7)]
    work = embed(source, tmp_path / output)
    assert (work.there, work.embedded, len(learner.items)) == (7, 0, 8)


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_another_input_or_other_options_are_not_gone_on_with(tmp_path: Path, embed, output: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *ROWS)
    embed(source, tmp_path / output)
    with pytest.raises(FailedPrecondition, match="was made with encoder e, not f"):
        embed(source, tmp_path / output, encoder="f")
    with pytest.raises(FailedPrecondition, match="was made with half False, not True"):
        embed(source, tmp_path / output, half=True)
    write_jsonl(source, *ROWS, {"id": "d", "text": "four"})
    with pytest.raises(FailedPrecondition, match="was made from another input"):
        embed(source, tmp_path / output)


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_a_slip_in_the_options_before_anything_was_embedded_can_be_mended(
    tmp_path: Path, embed, learner: Learner, output: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *ROWS)
    learner.fails["one"] = FailedPrecondition("no such encoder")
    with pytest.raises(FailedPrecondition, match="no such encoder"):
        embed(source, tmp_path / output, encoder="typo")
    assert embed(source, tmp_path / output).embedded == 3
    assert pq.read_table(tmp_path / output).num_rows == 3


def test_the_files_that_are_in_the_way_are_named(tmp_path: Path, embed, learner: Learner) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", *ROWS), tmp_path / "out.parquet"
    learner.fails["three"] = InvalidArgument("texts", "bad")
    with pytest.raises(InvalidArgument):
        embed(source, output)
    with pytest.raises(
        FailedPrecondition, match=r"out\.parquet\.parts was made with .*, or delete .*out\.parquet\.parts$"
    ):
        embed(source, output, encoder="f")


def test_files_of_others_are_left_alone(tmp_path: Path, embed) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *ROWS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FailedPrecondition, match="not of this command"):
        embed(source, tmp_path / "out")
    (tmp_path / "text.parquet").write_text("mine")
    with pytest.raises(FailedPrecondition, match="no Parquet file"):
        embed(source, tmp_path / "text.parquet")
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(FailedPrecondition, match="no directory"):
        embed(source, tmp_path / "plain")


def test_a_learner_that_is_away_is_waited_for(tmp_path: Path, embed, learner: Learner) -> None:
    learner.fails["two"] = Unavailable("away")
    work = embed(write_jsonl(tmp_path / "in.jsonl", *ROWS), tmp_path / "out")
    assert work.embedded == 3
    assert pq.read_table(tmp_path / "out").num_rows == 3


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"id": "a", "text": "again"}, "in.jsonl:4: id: 'a' is on line 1 already"),
        ({"id": "d", "text": " "}, "in.jsonl:4: text: is missing: there is nothing to embed"),
        ({"text": "x"}, "in.jsonl:4: id: is missing"),
    ],
)
def test_bad_rows_are_named_before_anything_is_embedded(tmp_path, embed, learner, row, complaint) -> None:
    with pytest.raises(InvalidArgument) as raised:
        embed(write_jsonl(tmp_path / "in.jsonl", *ROWS, row), tmp_path / "out")
    assert raised.value.message.startswith(complaint)
    assert learner.items == []
    assert not (tmp_path / "out").exists()


def test_images_are_known_by_their_paths_in_the_directory(tmp_path: Path, embed, learner: Learner) -> None:
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name, content in (("cats/b.JPG", b"bb"), ("a.png", b"a"), ("notes.txt", b"no"), ("cats/c.webp", b"ccc")):
        (folder / name).write_bytes(content)
    embed(folder, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ["a.png", "cats/b.JPG", "cats/c.webp"]
    assert table.column("uri").to_pylist() == table.column("id").to_pylist()
    assert learner.items == [b"a", b"bb", b"ccc"]
    (folder / "d.png").write_bytes(b"d")
    with pytest.raises(FailedPrecondition, match="another input"):
        embed(folder, tmp_path / "out.parquet")
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidArgument, match="holds no images"):
        look_through(tmp_path / "none")


def test_a_refused_item_is_named_with_where_the_learners_count_begins(tmp_path: Path, embed, learner) -> None:
    refused = InvalidArgument("texts", "the text at position 0 is bad")
    learner.fails["three"] = refused
    with pytest.raises(InvalidArgument, match=r"in.jsonl, from 'c' \(0\) on: texts: the text at position 0"):
        embed(write_jsonl(tmp_path / "in.jsonl", *ROWS), tmp_path / "out")


def test_float16_that_cannot_hold_a_vector_is_an_error(tmp_path: Path, embed) -> None:
    with pytest.raises(InvalidArgument, match="float16 does not hold the vector of 'long'"):
        embed(
            write_jsonl(tmp_path / "in.jsonl", {"id": "long", "text": "a" * 70_000}),
            tmp_path / "out.parquet",
            half=True,
        )
