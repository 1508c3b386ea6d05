"""The Job that embeds and the CronJob that writes snapshots: the second is run, against a real index server."""

import importlib.util
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import typer

from sealpool.cli.app import app
from sealpool.cli.options import learner_client
from sealpool.client import IndexClient
from sealpool.client.connection import Connection
from sealpool.errors import InvalidArgument
from sealpool.types import ItemId, Items
from sealpool.v1 import index_pb2
from tests.deploy.manifests import KUBERNETES, ROOT, VARIANTS, composed, variant
from tests.deploy.service_settings import settings_of
from tests.support.processes import ServiceProcess

NIGHT = datetime(2026, 3, 1, 1, 15, tzinfo=UTC)


WITH_JOBS = [name for name in VARIANTS if "components/jobs" in VARIANTS[name]]
NAMES = ("embed", "snapshots")


@pytest.fixture(params=WITH_JOBS)
def rendered(request):
    return variant(request.param)


def _arguments(rendered, pods):
    words = pods.container["command"]
    for name, value in rendered.environment(pods).items():
        words = [word.replace(f"$({name})", value) for word in words]
    return words


def test_the_job_s_command_is_one_that_the_command_line_takes(rendered, tmp_path):
    pods = rendered.service_pods("embed")
    assert pods.kind == "Job"
    program, command, source, *rest = _arguments(rendered, pods)
    assert (program, command) == ("/opt/sealpool/bin/sealpool", "embed")
    assert str(Path(source).parent) == str(Path(rest[0]).parent) == "/data"
    assert "persistentVolumeClaim" in pods.mounts["/data"]
    (tmp_path / "texts.jsonl").write_text("{}")
    typer.main.get_command(app).commands["embed"].make_context("embed", [str(tmp_path / "texts.jsonl"), *rest])


def test_a_job_that_is_cut_off_goes_on_where_it_was(rendered):
    job = rendered.one("Job", "embed")["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert job["backoffLimit"] >= 5
    assert "activeDeadlineSeconds" not in job, "nobody knows how long a million texts take"


def test_jobs_run_by_variables_that_the_client_and_the_command_line_read(rendered):
    known = "".join(path.read_text() for path in (ROOT / "sealpool").rglob("*.py"))
    for name in ("embed", "snapshots"):
        for variable in rendered.environment(rendered.service_pods(name)):
            if variable.startswith("SEALPOOL_"):
                assert f'"{variable}"' in known, variable


TLS_FILES = {
    "SEALPOOL_CA_CERTIFICATE": "/etc/sealpool/tls/ca.crt",
    "SEALPOOL_CLIENT_CERTIFICATE": "/etc/sealpool/tls/tls.crt",
    "SEALPOOL_CLIENT_KEY": "/etc/sealpool/tls/tls.key",
}


def _uses_tls(rendered, name):
    pods = rendered.service_pods(name)
    environment = rendered.environment(pods)
    if "/etc/sealpool/tls" not in pods.mounts:
        assert not TLS_FILES.keys() & environment.keys()
        assert environment["SEALPOOL_INSECURE"] == "true", "or it would send no token"
        return False
    assert pods.mounts["/etc/sealpool/tls"]["secret"]["secretName"] == "jobs-tls"
    assert TLS_FILES.items() <= environment.items()
    assert environment["SEALPOOL_INSECURE"] == "false"
    return True


def test_jobs_call_as_the_services_are_called(rendered):
    with_tls = settings_of(rendered, "index-server").tls_certificate is not None
    for name in NAMES:
        assert _uses_tls(rendered, name) is with_tls
    if with_tls:
        assert rendered.one("Certificate", "jobs")["spec"]["secretName"] == "jobs-tls"


def test_tls_alone_gives_the_jobs_nothing_to_look_for():
    assert not {pods.name for pods in variant("cpu with tls").pods()} & set(NAMES)


def test_an_embed_of_its_own_can_be_given_tls():
    assert _uses_tls(composed("jobs/embed", "components/tls/jobs"), "embed") is True
    assert _uses_tls(composed("jobs/embed"), "embed") is False


def test_each_job_has_a_token_of_its_own(rendered):
    for name in NAMES:
        assert rendered.environment(rendered.service_pods(name))["SEALPOOL_TOKEN"] == f"sealpool-tokens/{name}.token"


def test_without_tls_the_clients_of_the_jobs_send_their_token(script, monkeypatch):
    rendered = variant("cpu with jobs")
    environment = rendered.environment(rendered.service_pods("snapshots"))
    Connection(environment["SEALPOOL_INDEX"], options=script.client_options(environment)).close()
    for variable, value in rendered.environment(rendered.service_pods("embed")).items():
        monkeypatch.setenv(variable, value)
    learner_client(rendered.environment(rendered.service_pods("embed"))["SEALPOOL_LEARNER"]).close()
    monkeypatch.delenv("SEALPOOL_INSECURE")
    with pytest.raises(InvalidArgument):
        learner_client("dns:///learner:7302")
    with pytest.raises(InvalidArgument):
        Connection("dns:///index-server:7301", options=script.client_options({"SEALPOOL_TOKEN": "a-token"}))


def test_snapshots_are_written_each_night_and_never_two_at_once(rendered):
    spec = rendered.one("CronJob", "snapshots")["spec"]
    minute, hour, *days = spec["schedule"].split()
    assert (int(minute) < 60, int(hour) < 24, days) == (True, True, ["*", "*", "*"])
    assert spec["timeZone"] == "Etc/UTC"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] >= 3600


def test_index_server_and_cron_job_have_one_volume_at_one_place_below_which_snapshots_may_be_written(rendered):
    environment = rendered.environment(rendered.service_pods("snapshots"))
    claims = {
        name: rendered.service_pods(name).mounts[environment["SNAPSHOTS"]]["persistentVolumeClaim"]["claimName"]
        for name in ("index-server", "snapshots")
    }
    assert claims["index-server"] == claims["snapshots"]
    assert rendered.one("PersistentVolumeClaim", claims["snapshots"])["spec"]["accessModes"] == ["ReadWriteMany"]
    assert settings_of(rendered, "index-server").snapshot_roots == (environment["SNAPSHOTS"],)


def test_the_script_that_runs_is_the_one_beside_the_cron_job(rendered):
    pods = rendered.service_pods("snapshots")
    program, script = pods.container["command"]
    assert program == "/opt/sealpool/bin/python"
    config = rendered.one("ConfigMap", pods.mounts["/script"]["configMap"]["name"])
    assert config["data"][Path(script).name] == SCRIPT.read_text()


SCRIPT = KUBERNETES / "jobs" / "snapshots" / "snapshot.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("snapshot", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "snapshots").mkdir()
    roots = json.dumps([str(folder / "snapshots")])
    # Whatever else is on the disk of who runs the tests.
    marks = ("--disk-throttle-share", "1", "--disk-refuse-share", "1")
    process = ServiceProcess("index_server", folder, "--snapshot-roots", roots, *marks)
    process.start()
    try:
        with IndexClient(process.address) as index:
            for name in ("reports", "letters"):
                index.create_pool(index_pb2.PoolSpec(name=name, dimension=4))
                index.upsert(name, Items(ids=[ItemId("a"), ItemId("b")], vectors=np.eye(2, 4, dtype=np.float32)))
            index.set_alias("live", "reports")
            yield process, index, folder / "snapshots"
    finally:
        process.stop()


def _environment(process, root, keep="2"):
    return {"SEALPOOL_INDEX": process.address, "SNAPSHOTS": str(root), "KEEP": keep}


def test_a_night_writes_every_pool_and_the_aliases_and_they_can_be_restored(script, server):
    process, index, root = server
    assert script.main(_environment(process, root), NIGHT) == 0
    written = root / "20260301T011500Z"
    assert {path.name for path in written.iterdir()} == {"reports", "letters", "aliases.json"}
    assert json.loads((written / "aliases.json").read_text()) == {"live": "reports"}
    assert index.restore_snapshot(str(written / "reports"), name="again").size == 2
    index.delete_pool("again")


def test_only_the_newest_whole_nights_are_kept_and_what_was_cut_off_before_them_goes(script, server):
    process, _, root = server
    (root / "20260228T011500Z" / "reports").mkdir(parents=True)
    for night in range(4):
        assert script.main(_environment(process, root), NIGHT + timedelta(days=1 + night)) == 0
    assert {path.name for path in root.iterdir()} == {"20260304T011500Z", "20260305T011500Z"}


def test_a_night_that_failed_drops_nothing(script, server):
    process, _, root = server
    before = {path.name for path in root.iterdir()}
    in_the_way = root / "20260320T011500Z" / "letters"
    in_the_way.mkdir(parents=True)
    (in_the_way / "something").write_text("")
    assert script.main(_environment(process, root, keep="1"), datetime(2026, 3, 20, 1, 15, tzinfo=UTC)) == 1
    assert {path.name for path in root.iterdir()} == before | {"20260320T011500Z"}
    assert not (root / "20260320T011500Z" / "aliases.json").exists()
