"""`sealpool embed` and `sealpool pool reembed` against a real learner and a real index server in this process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
import structlog
import torch
from PIL import Image
from prometheus_client import CollectorRegistry
from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTImageProcessor, ViTModel

from index_server.app import build as build_index
from index_server.settings import IndexServerSettings
from learner.app import build as build_learner
from learner.settings import LearnerSettings
from sealpool.cli.app import run
from sealpool.client import IndexClient
from tests.support.index_at_hand import wait_until_serving

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LOG = structlog.wrap_logger(structlog.ReturnLogger())


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexClient]:
    """An index server, and a learner before it; a client of the first."""
    at = {"listen": "127.0.0.1:0", "metrics_listen": ""}
    index = build_index(
        IndexServerSettings(**at, data_dir=tmp_path / "index", search_threads=1), registry=CollectorRegistry(), log=LOG
    )
    settings = LearnerSettings(**at, data_dir=tmp_path / "learner", index_server=index.address, device="cpu")
    learner = build_learner(settings, registry=CollectorRegistry(), log=LOG)
    learner.start()
    learner.set_serving()
    with grpc.insecure_channel(index.address) as channel:
        wait_until_serving(channel)
    monkeypatch.setenv("SEALPOOL_INDEX", index.address)
    monkeypatch.setenv("SEALPOOL_LEARNER", learner.address)
    with IndexClient(index.address) as client:
        yield client
    learner.stop()
    index.stop()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=12, **SIZES)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SIZES, image_size=16, patch_size=8)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """Run a command that must succeed; return its JSON."""

    def call(*arguments: str | Path) -> dict:
        capsys.readouterr()
        code = run([*map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return call


def write_texts(path: Path) -> Path:
    rows = [{"id": f"i{n:02}", "text": "abcdefg"[n % 7] + " a" * (n % 4), "labels": ["x"]} for n in range(25)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_become_a_file_that_goes_into_a_pool_and_the_pool_into_another(
    services: IndexClient, answer, tmp_path: Path, bert: str
) -> None:
    source, output = write_texts(tmp_path / "in.jsonl"), tmp_path / "out.parquet"
    embed = ("embed", source, output, "--encoder", bert, "--part-rows", "10", "--half")
    made = answer(*embed)
    assert (made["rows"], made["embedded"]) == (25, 25)
    assert answer(*embed)["embedded"] == 0
    assert answer("pool", "ingest", "old", output, "--create")["items"] == 25

    reembed = ("pool", "reembed", "old", "new", "--encoder", bert, "--pooling", "cls", "--alias", "live")
    job = answer(*reembed)
    assert (job["state"], job["items"], job["done"]) == ("finished", 25, 25)
    assert answer(*reembed)["id"] == job["id"]
    assert answer("pool", "reembedding", "watch", job["id"])["state"] == "finished"
    assert answer("pool", "reembedding", "cancel", job["id"])["state"] == "finished"
    assert services.get_pool("live").spec.name == "new"
    old, new = (services.get_items(pool, ["i01", "i02"], payloads=True) for pool in ("old", "live"))
    assert old.payloads == new.payloads
    assert not np.allclose(old.vectors, new.vectors, atol=1e-2)


def test_images_of_a_directory_become_vectors(services, answer, tmp_path: Path, vit: str) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        Image.new("RGB", (9, 7), (40 * number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    answer("embed", tmp_path / "photos", tmp_path / "vectors", "--encoder", vit, "--part-rows", "2")
    table = pq.read_table(tmp_path / "vectors")
    assert table.column("id").to_pylist() == [f"{number}.png" for number in range(5)]
    vectors = np.array(table.column("vector").to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_goes_wrong_is_one_line(services, tmp_path: Path, bert: str, vit: str, capsys) -> None:
    source = write_texts(tmp_path / "in.jsonl")
    assert run(["embed", str(source), str(tmp_path / "a"), "--encoder", vit]) == 1
    assert "this encoder reads images" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    assert run(["embed", str(tmp_path / "photos"), str(tmp_path / "b"), "--encoder", vit]) == 1
    assert "photos, from 'a.png' (0) on: images: the bytes at position 0 are no image" in capsys.readouterr().err
    assert run(["pool", "reembed", "nowhere", "new", "--encoder", bert]) == 1
    assert "no such pool: 'nowhere'" in capsys.readouterr().err
    assert run(["pool", "reembed", "old", "new", "--encoder", bert, "--campaign", "news", "--round", "1"]) == 2
