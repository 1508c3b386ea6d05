"""The network policies let through the arrows of the design, and nothing else: each pair and port is tried."""

import pytest

from tests.deploy.manifests import SERVICES, VARIANTS, variant
from tests.deploy.network import Peer, allowed
from tests.deploy.service_settings import settings_of

PORTS = (53, 80, 443, 4317, 5432, 7301, 7302, 7303, 7311, 7312, 7313, 7323, 7331, 7332, 7333, 9090, 19530)


def _elsewhere(name, namespace, labels, **namespace_labels):
    named = {"kubernetes.io/metadata.name": namespace, **namespace_labels}
    return Peer(name=name, namespace=namespace, labels=labels, namespace_labels=named)


_CALLS = {f"sealpool-calls-{service}": "true" for service in ("index-server", "learner", "scheduler")}
_CLIENTS = {"sealpool-clients": "true"}
OTHERS = (
    _elsewhere("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    _elsewhere("grafana", "monitoring", {"app.kubernetes.io/name": "grafana"}),
    _elsewhere("prometheus elsewhere", "other", {"app.kubernetes.io/name": "prometheus"}),
    _elsewhere("dns", "kube-system", {"k8s-app": "kube-dns"}),
    _elsewhere("dns elsewhere", "other", {"k8s-app": "kube-dns"}),
    _elsewhere("postgresql", "databases", {"app.kubernetes.io/name": "postgresql"}),
    _elsewhere("milvus", "milvus", {"app.kubernetes.io/name": "milvus"}),
    _elsewhere("collector", "observability", {"app.kubernetes.io/name": "opentelemetry-collector"}),
    _elsewhere("collector elsewhere", "other", {"app.kubernetes.io/name": "opentelemetry-collector"}),
    _elsewhere("stranger", "other", {"app.kubernetes.io/name": "scheduler"}),
    _elsewhere("self-appointed client", "other", _CALLS),
    _elsewhere("neighbour of clients", "apps", {}, **_CLIENTS),
    *(_elsewhere(f"client of {call[15:]}", f"apps-{call}", {call: "true"}, **_CLIENTS) for call in _CALLS),
    Peer(name="internet", address="203.0.113.7"),
)

BASE = {
    ("learner", "index-server", 7301),
    ("scheduler", "index-server", 7301),
    ("scheduler", "learner", 7302),
    ("scheduler", "postgresql", 5432),
    ("prometheus", "index-server", 7311),
    ("prometheus", "learner", 7312),
    ("prometheus", "scheduler", 7313),
    ("client of index-server", "index-server", 7301),
    ("client of learner", "learner", 7302),
    ("client of scheduler", "scheduler", 7303),
    ("client of scheduler", "scheduler", 7323),
}
JOBS = {("embed", "learner", 7302), ("snapshots", "index-server", 7301)}
TRACES = {(service, "collector", 4317) for service in SERVICES}
MORE = {
    "milvus": {("index-server", "milvus", 19530)},
    "cpu with jobs": JOBS | TRACES,
    "gpu with all": JOBS | TRACES,
}


def _ours(rendered):
    named = {"kubernetes.io/metadata.name": "sealpool", **rendered.one("Namespace", "sealpool")["metadata"]["labels"]}
    return [
        Peer(name=pods.name, namespace="sealpool", labels=pods.labels, namespace_labels=named)
        for pods in rendered.pods()
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_only_the_arrows_of_the_design_are_let_through(name):
    rendered = variant(name)
    policies, ours = rendered.of("NetworkPolicy"), _ours(rendered)
    open_ = {
        (source.name, target.name, port)
        for source in (*ours, *OTHERS)
        for target in (*ours, *OTHERS)
        for port in PORTS
        if {source, target} & set(ours) and allowed(policies, source, target, port)
    }
    dns = {(pod.name, "dns", 53) for pod in ours}
    assert open_ == BASE | MORE.get(name, set()) | dns


@pytest.mark.parametrize("name", VARIANTS)
def test_one_policy_denies_both_ways_to_every_pod_by_itself(name):
    denying = variant(name).one("NetworkPolicy", "nothing-else")["spec"]
    assert denying == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("name", VARIANTS)
def test_names_are_resolved_over_both_protocols(name):
    rendered = variant(name)
    (dns,) = (peer for peer in OTHERS if peer.name == "dns")
    for pod in _ours(rendered):
        assert allowed(rendered.of("NetworkPolicy"), pod, dns, 53, "UDP")
        assert not allowed(rendered.of("NetworkPolicy"), pod, dns, 7301, "UDP")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_pod_that_comes_into_the_namespace_can_reach_and_be_reached_by_nobody(name):
    rendered = variant(name)
    new = Peer(name="new", namespace="sealpool", labels={}, namespace_labels={})
    for other in (*_ours(rendered), *(peer for peer in OTHERS if peer.name != "dns")):
        for port in PORTS:
            assert not allowed(rendered.of("NetworkPolicy"), new, other, port)
            assert not allowed(rendered.of("NetworkPolicy"), other, new, port)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_probes_ports_are_the_kubelet_s_alone_which_no_policy_can_keep_out(name):
    rendered = variant(name)
    for service in SERVICES:
        port = int(settings_of(rendered, service).health_listen.rpartition(":")[2])
        for policy in rendered.of("NetworkPolicy"):
            for rule in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())):
                assert port not in {entry["port"] for entry in rule["ports"]}
