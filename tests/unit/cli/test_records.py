"""Files that people have: what is read from them, and what is said of a bad row."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sealpool.cli.records import Record, read_chunks
from sealpool.errors import InvalidArgument

ROWS = [
    {"id": "a", "text": "one", "labels": ["x"], "split": "train", "price": 3},
    {"id": "b", "text": "two", "labels": ["x", "y"], "split": "test", "price": 4},
]


def read(path: Path, **more) -> list[Record]:
    return [record for chunk in read_chunks(path, **more) for record in chunk.records]


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_json_lines_give_text_labels_split_and_the_rest_as_metadata(tmp_path):
    first, second = read(write_jsonl(tmp_path / "data.jsonl", *ROWS))
    assert (first.id, first.text, first.labels, first.split, first.line) == ("a", "one", ("x",), "train", 1)
    assert first.metadata == {"labels": ["x"], "split": "train", "price": 3}
    assert second.labels == ("x", "y")


def test_gzip_csv_and_parquet_give_the_same_records_as_json_lines(tmp_path):
    expected = [(r["id"], r["text"], tuple(r["labels"]), r["split"]) for r in ROWS]
    packed = tmp_path / "data.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    table = tmp_path / "data.csv"
    table.write_text('id,text,labels,split,price\na,one,x,train,3\nb,two,"[""x"", ""y""]",test,4\n')
    columns = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), columns)
    for path in (packed, table, columns):
        assert [(r.id, r.text, r.labels, r.split) for r in read(path)] == expected, path.name


def test_chunks_are_bounded_and_say_how_much_was_read(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", *({"id": str(n)} for n in range(25)))
    chunks = list(read_chunks(path, chunk_rows=10))
    assert [len(chunk.records) for chunk in chunks] == [10, 10, 5]
    assert chunks[-1].share_read == 1.0


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_vector_column_becomes_float32_rows(tmp_path, kind):
    rows = [{"id": "a", "vector": [1.0, 2.0]}, {"id": "b", "vector": [3.0, 4.5]}]
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        write_jsonl(path, *rows)
    elif kind == "csv":
        path.write_text('id,vector\na,"[1.0, 2.0]"\nb,"[3.0, 4.5]"\n')
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    (chunk,) = read_chunks(path)
    assert chunk.vectors.dtype == np.float32
    np.testing.assert_array_equal(chunk.vectors, [[1, 2], [3, 4.5]])
    assert "vector" not in chunk.records[0].metadata


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "no id"}, "data.jsonl:2: id: is missing"),
        ({"id": ""}, "data.jsonl:2: id: is not a text of 1 to 256 bytes"),
        ({"id": "é" * 129}, "data.jsonl:2: id: is not a text of 1 to 256 bytes"),
        ({"id": "a", "text": 3}, "data.jsonl:2: text: is a number, not a text"),
        ({"id": "a", "labels": {"x": 1}}, "data.jsonl:2: labels: is an object, not a text or a list of texts"),
        ({"id": "a", "labels": ["x", "x"]}, "data.jsonl:2: labels: names a label twice"),
        ({"id": "a", "labels": [""]}, "data.jsonl:2: labels: holds something that is not a text, or empty"),
        ({"id": "a", "vector": [1, 2, 3]}, "data.jsonl:2: vector: has dimension 3, not 2"),
        ({"id": "a", "vector": "pear"}, "data.jsonl:2: vector: is not a list of numbers"),
        ({"id": "a"}, "data.jsonl:2: vector: is missing"),
        ("{", "data.jsonl:2: line: is not JSON"),
        ("[1]", "data.jsonl:2: line: is a list, not a JSON object"),
        ('{"id": "a", "vector": [1, NaN]}', "data.jsonl:2: vector: holds NaN or infinity"),
    ],
)
def test_a_bad_row_is_named_with_file_line_and_field(tmp_path, row, complaint):
    path = write_jsonl(tmp_path / "data.jsonl", {"id": "good", "vector": [1, 2]}, row)
    with pytest.raises(InvalidArgument) as caught:
        read(path)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("text\nhello\n", "data.csv:1: id: the header has no such column"),
        ("id,text\na,b,c\n", "data.csv:2: line: has another number of cells"),
        ("id,text\na\n", "data.csv:2: line: has another number of cells"),
        ("id,labels\na,[x\n", "data.csv:2: labels: begins as a JSON list and is none"),
    ],
)
def test_a_bad_csv_is_named_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        read(path)
    assert str(caught.value).startswith(complaint)


def test_a_line_break_inside_a_csv_cell_does_not_shift_the_cells(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('id,text\na,"two\nlines"\nb,one\n')
    assert [record.text for record in read(path)] == ["two\nlines", "one"]


def test_parquet_vectors_of_several_lengths_are_refused_by_row(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": "a", "vector": [1.0]}, {"id": "b", "vector": [1.0, 2.0]}]), path)
    with pytest.raises(InvalidArgument, match=r"data\.parquet:2: vector: has dimension 2, not 1"):
        read(path)


def test_a_file_that_is_not_what_its_name_says_is_refused_without_a_traceback(tmp_path):
    for name in ("data.parquet", "data.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(b"this is neither")
        with pytest.raises(InvalidArgument, match=name):
            read(path)
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(InvalidArgument, match=r"data\.xlsx: is not JSON Lines"):
        read(tmp_path / "data.xlsx")
