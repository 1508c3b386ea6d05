"""Snapshots in an object store, spoken to in its own protocol."""

import json
from urllib.parse import quote

import numpy as np
import pytest
from pyarrow import fs

from index_server.records import Records
from index_server.spec import PoolSpec, VectorType
from index_server.store.lance_store import LanceStore
from index_server.store.snapshots import read_snapshot_spec, restore_snapshot, write_snapshot
from sealpool.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable

moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")

DIMENSION = 4


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    store = fs.S3FileSystem(**keys(f"{host}:{port}"), allow_bucket_creation=True)
    store.create_dir("bucket")
    yield f"{host}:{port}"
    server.stop()


def keys(endpoint):
    return {
        "access_key": "key",
        "secret_key": "secret",
        "scheme": "http",
        "region": "us-east-1",
        "endpoint_override": endpoint,
    }


def url(endpoint, path):
    return f"s3://key:secret@bucket/{path}?scheme=http&region=us-east-1&endpoint_override={quote(endpoint)}"


@pytest.fixture
def pool(tmp_path):
    directory = tmp_path / "pool"
    directory.mkdir()
    LanceStore.create(directory, dimension=DIMENSION, vector_type=VectorType.FLOAT32)
    spec = PoolSpec(name="p", dimension=DIMENSION)
    (directory / "pool.json").write_text(json.dumps({"spec": spec.to_json()}))
    return directory


@pytest.fixture
def snapshot(pool):
    store = LanceStore.open(pool)
    upload = store.begin()
    upload.write(Records(ids=["a", "b"], vectors=np.eye(2, DIMENSION, dtype=np.float32)))
    upload.finish()
    store.commit([upload], np.empty(0, np.uint64))
    return store.snapshot()


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def test_a_pool_goes_to_an_object_store_and_back(endpoint, pool, snapshot, into):
    uri = url(endpoint, "there/and/back")
    written = write_snapshot(pool, snapshot, uri)
    assert read_snapshot_spec(uri).name == "p"
    assert restore_snapshot(uri, into) == written
    (part,) = LanceStore.open(into).snapshot().items()
    assert part.ids.to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(part.vectors, np.eye(2, DIMENSION))
    with pytest.raises(AlreadyExists, match="s3://bucket/there/and/back") as caught:
        write_snapshot(pool, snapshot, uri)
    assert "secret" not in caught.value.message


def test_an_empty_prefix_holds_no_snapshot(endpoint, into):
    with pytest.raises(NotFound):
        restore_snapshot(url(endpoint, "nothing"), into)


def test_damage_in_an_object_store_is_found(endpoint, pool, snapshot, into):
    uri = url(endpoint, "damaged")
    write_snapshot(pool, snapshot, uri)
    store = fs.S3FileSystem(**keys(endpoint))
    with store.open_output_stream("bucket/damaged/HEAD") as stream:
        stream.write(b'{"version": 3}')
    with pytest.raises(FailedPrecondition, match="HEAD is damaged"):
        restore_snapshot(uri, into)


def test_an_object_store_that_refuses_is_unavailable(endpoint, pool, snapshot):
    uri = url(endpoint, "x").replace("@bucket", "@no-such-bucket")
    with pytest.raises(Unavailable) as caught:
        write_snapshot(pool, snapshot, uri)
    assert "secret" not in caught.value.message
