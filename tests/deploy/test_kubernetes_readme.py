"""What deploy/kubernetes/README.md tells users to do is done here, up to the cluster that there is none of."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.deploy.manifests import KUBERNETES, composed, kubectl
from tests.deploy.secret_keys import SECRETS

README = KUBERNETES / "README.md"

DRY_KUBECTL = """#!/bin/sh
{kubectl} "$@" --dry-run=client --output yaml >>objects.yaml
echo --- >>objects.yaml
"""


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_its_commands_make_the_secrets_that_the_manifests_name(tmp_path):
    commands = [block for block in _blocks("sh") if "create secret" in block]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "kubectl").write_text(DRY_KUBECTL.format(kubectl=kubectl()))
    (programs / "kubectl").chmod(0o700)
    (programs / "sealpool").symlink_to(_sealpool())
    (tmp_path / "token").write_text("root:Milvus")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    for block in commands:
        subprocess.run(["/bin/sh", "-eu", "-c", block], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    made = [document for document in yaml.safe_load_all((tmp_path / "objects.yaml").read_text()) if document]
    keys = {one["metadata"]["name"]: set(one["data"]) for one in made if one["kind"] == "Secret"}
    assert keys == {name: known for name, known in SECRETS.items() if not name.endswith("-tls")}
    assert {one["metadata"]["namespace"] for one in made if one["kind"] == "Secret"} == {"sealpool"}


def _sealpool():
    beside = Path(sys.executable).with_name("sealpool")
    found = str(beside) if beside.exists() else shutil.which("sealpool")
    assert found, "no sealpool on the path: `make install` puts it there"
    return found


def test_its_overlay_renders():
    (overlay,) = (yaml.safe_load(block) for block in _blocks("yaml") if "kind: Kustomization" in block)
    ours = [
        name.removeprefix("../sealpool/deploy/kubernetes/") for name in overlay["resources"] + overlay["components"]
    ]
    rendered = composed(*ours, fields={name: overlay[name] for name in ("images", "configMapGenerator", "patches")})
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in rendered.of("PersistentVolumeClaim")}
    assert claims.keys() == {"learner-checkpoints", "snapshots"}, "those that the patch's comment names"
    assert {claim["storageClassName"] for claim in claims.values()} == {"shared-files"}
    (template,) = rendered.one("StatefulSet", "index-server")["spec"]["volumeClaimTemplates"]
    assert template["spec"]["storageClassName"] == "local-disks"
    for pods in rendered.pods():
        assert pods.container["image"].startswith("registry.example.com/sealpool/")
    snapshots = rendered.environment(rendered.service_pods("snapshots"))
    assert snapshots["SEALPOOL_INSECURE"] == "false", "tls comes after the jobs"
    index_server = rendered.environment(rendered.service_pods("index-server"))
    assert index_server["SEALPOOL_INDEX_SERVER_FLAT_ITEMS"] == "100000"
    assert index_server["SEALPOOL_INDEX_SERVER_LISTEN"] == "0.0.0.0:7301", "merged, not replaced"


def test_it_names_every_overlay_component_and_job():
    text = README.read_text()
    for folder in ("overlays", "components", "jobs"):
        for path in (KUBERNETES / folder).iterdir():
            assert f"{folder}/{path.name}" in text


def test_files_that_it_leads_to_are_there():
    for target in re.findall(r"\]\(([^)#:]+)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_connections_to_postgresql_are_counted_right():
    settings = (KUBERNETES / "base" / "scheduler" / "settings.env").read_text()
    connections = int(re.search(r"DATABASE_CONNECTIONS=(\d+)", settings)[1])
    deployment = yaml.safe_load((KUBERNETES / "base" / "scheduler" / "deployment.yaml").read_text())["spec"]
    at_once = deployment["replicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert f"must take {at_once * (connections + 1)}:" in README.read_text()
