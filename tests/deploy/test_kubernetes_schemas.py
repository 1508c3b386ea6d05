"""Every object is one that Kubernetes knows, in the newest version and in one three minors older."""

import json

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tests.deploy.manifests import KUBERNETES, VARIANTS, kubectl, render, variant

VERSIONS = ("1.34", "1.37")

_NAME = {"type": "string", "minLength": 1}
_ISSUER = {"type": "object", "required": ["kind", "name"], "additionalProperties": False}
_ISSUER["properties"] = {"kind": {"enum": ["Issuer", "ClusterIssuer"]}, "name": _NAME, "group": _NAME}
_HOURS = {"type": "string", "pattern": "^[0-9]+h$"}
_SELECTOR = {"type": "object", "required": ["matchLabels"]}
_ENDPOINT = {
    "type": "object",
    "required": ["port"],
    "properties": {"port": {"enum": ["metrics"]}, "path": {"const": "/metrics"}},
}
_RULE = {
    "type": "object",
    "required": ["expr"],
    "properties": {
        "expr": _NAME,
        "record": _NAME,
        "alert": _NAME,
        "for": _NAME,
        "keep_firing_for": _NAME,
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
    "additionalProperties": False,
}


def _closed(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _monitor(endpoints):
    return {
        "type": "object",
        "required": ["selector", endpoints],
        "properties": {"selector": _SELECTOR, endpoints: {"type": "array", "minItems": 1, "items": _ENDPOINT}},
    }


CUSTOM = {
    ("cert-manager.io/v1", "Issuer"): {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {"selfSigned": _closed([]), "ca": _closed(["secretName"], secretName=_NAME)},
        "additionalProperties": False,
    },
    ("cert-manager.io/v1", "Certificate"): _closed(
        ["secretName", "issuerRef", "privateKey", "duration", "renewBefore"],
        secretName=_NAME,
        issuerRef=_ISSUER,
        isCA={"type": "boolean"},
        commonName={"type": "string", "maxLength": 64},
        dnsNames={"type": "array", "minItems": 1, "items": _NAME},
        duration=_HOURS,
        renewBefore=_HOURS,
        usages={"type": "array", "items": {"enum": ["digital signature", "server auth", "client auth"]}},
        privateKey=_closed(
            ["algorithm", "size"],
            algorithm={"enum": ["ECDSA", "RSA"]},
            size={"type": "integer"},
            rotationPolicy={"enum": ["Always", "Never"]},
        ),
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _monitor("endpoints"),
    ("monitoring.coreos.com/v1", "PodMonitor"): _monitor("podMetricsEndpoints"),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _closed(
        ["groups"],
        groups={
            "type": "array",
            "minItems": 1,
            "items": _closed(
                ["name", "rules"],
                name=_NAME,
                interval=_NAME,
                limit={"type": "integer"},
                rules={"type": "array", "minItems": 1, "items": _RULE},
            ),
        },
    ),
}
"""Custom resources, of which Kubernetes has no schema: the `spec` that we write, and no field beside."""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_as_its_schema_says(version):
    different = {json.dumps(document, sort_keys=True) for name in VARIANTS for document in variant(name)}
    assert len(different) > len(variant("base"))
    for document in map(json.loads, sorted(different)):
        key = document["apiVersion"], document["kind"]
        if key in CUSTOM:
            jsonschema.validate(document["spec"], CUSTOM[key])
        else:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_newest_version_that_has_schemas_is_tried_and_one_three_older():
    assert set(VERSIONS) <= {utils.major_minor(known) for known in utils.all_versions()}
    assert utils.latest_version().startswith(VERSIONS[-1])
    newest, older = (int(version.split(".")[1]) for version in reversed(VERSIONS))
    assert newest - older >= 3


def test_every_custom_resource_is_used_somewhere():
    used = {(document["apiVersion"], document["kind"]) for document in variant("gpu with all")}
    assert used >= set(CUSTOM)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_two_objects_have_one_name(name):
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in variant(name)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_is_in_the_namespace(name):
    for document in variant(name):
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "sealpool", document["metadata"]["name"]


def test_every_kustomization_renders_by_itself_or_is_a_component():
    for path in sorted(KUBERNETES.rglob("kustomization.yaml")):
        if "kind: Component" not in path.read_text():
            assert render(path.parent), path


def test_there_is_a_kubectl():
    assert kubectl().endswith("kubectl")
