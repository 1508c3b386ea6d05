"""What overlays and components add: GPUs, Milvus, TLS, monitoring, more learners."""

import re

import pytest
import yaml

from deploy.supply_chain.lock import EXTRAS
from tests.deploy.manifests import KUBERNETES, ROOT, SERVICES, VARIANTS, composed, quantity, variant
from tests.deploy.service_settings import settings_of

TLS = [name for name in VARIANTS if "components/tls" in VARIANTS[name]]
GPUS = [name for name in VARIANTS if "overlays/gpu" in VARIANTS[name]]
PLAIN = [name for name in VARIANTS if name not in TLS]
HALF_TLS = {"index-server": ("tls_",), "learner": ("tls_", "services_"), "scheduler": ("tls_", "services_")}


def _hours(duration):
    return int(duration.removesuffix("h"))


def test_without_a_gpu_nothing_asks_for_one():
    for name in VARIANTS:
        if name in GPUS:
            continue
        for pods in variant(name).pods():
            assert "nvidia.com/gpu" not in pods.container["resources"]["limits"]
            assert not {"nodeSelector", "tolerations", "runtimeClassName"} & pods.spec.keys()
            assert not pods.container["image"].partition(":")[0].endswith("-gpu")
    assert settings_of(variant("cpu"), "learner").device == "cpu"


@pytest.mark.parametrize("name", GPUS)
def test_with_gpus_index_server_and_learner_have_one_each_on_nodes_that_are_for_it(name):
    for service in ("index-server", "learner"):
        found = variant(name).service_pods(service)
        assert found.container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert found.container["resources"]["requests"]["nvidia.com/gpu"] == "1", "a GPU is not shared"
        assert found.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in found.spec["tolerations"]
        assert found.container["image"].startswith(f"sealpool/{service}-gpu:")
    assert "nvidia.com/gpu" not in variant(name).service_pods("scheduler").container["resources"]["limits"]
    assert settings_of(variant(name), "learner").device == "cuda"


@pytest.mark.parametrize("name", GPUS)
def test_no_second_gpu_is_waited_for_when_a_pod_is_replaced(name):
    assert variant(name).service_pods("learner").owner["spec"]["strategy"] == {"type": "Recreate"}
    assert variant(name).service_pods("index-server").kind == "StatefulSet"


def test_the_runtime_class_is_an_option():
    with_it = composed("overlays/gpu", "components/runtime-class")
    for service in ("index-server", "learner"):
        assert with_it.service_pods(service).spec["runtimeClassName"] == "nvidia"
        assert "runtimeClassName" not in variant("gpu").service_pods(service).spec
    assert "runtimeClassName" not in with_it.service_pods("scheduler").spec


def test_milvus_is_named_by_its_address_and_a_secret():
    rendered = variant("milvus")
    settings = settings_of(rendered, "index-server")
    assert settings.milvus_uri == "http://milvus.milvus:19530"
    assert str(settings.milvus_token_file) == "/etc/sealpool/milvus/token"
    volume = rendered.service_pods("index-server").mounts["/etc/sealpool/milvus"]
    assert volume["secret"]["secretName"] == "sealpool-milvus"
    assert not [pods.name for pods in rendered.pods() if pods.name not in SERVICES], "Milvus has its own operator"


@pytest.mark.parametrize("name", TLS)
def test_with_tls_every_service_has_a_certificate_and_nothing_is_insecure(name):
    for service, beginnings in HALF_TLS.items():
        settings = settings_of(variant(name), service)
        assert not settings.insecure
        paths = {"tls_certificate": "tls.crt", "tls_key": "tls.key"}
        if "services_" in beginnings:
            paths |= {"services_ca": "ca.crt", "services_certificate": "tls.crt", "services_key": "tls.key"}
        for setting, file in paths.items():
            assert str(getattr(settings, setting)) == f"/etc/sealpool/tls/{file}", (service, setting)
        volume = variant(name).service_pods(service).mounts["/etc/sealpool/tls"]
        assert volume["secret"]["secretName"] == f"{service}-tls"


@pytest.mark.parametrize("name", TLS)
def test_index_server_and_learner_ask_callers_for_a_certificate_and_the_scheduler_asks_nobody(name):
    for service, wanted in {"index-server": True, "learner": True, "scheduler": False}.items():
        assert bool(settings_of(variant(name), service).tls_client_ca) is wanted


@pytest.mark.parametrize("name", TLS)
def test_certificates_bear_the_names_that_clients_call(name):
    for service in SERVICES:
        certificate = variant(name).one("Certificate", service)["spec"]
        assert certificate["secretName"] == f"{service}-tls"
        assert {service, f"{service}.sealpool", f"{service}.sealpool.svc"} <= set(certificate["dnsNames"])
        assert {"server auth", "client auth"} <= set(certificate["usages"]), "it calls the others with it"
    assert "scheduler-http" in variant(name).one("Certificate", "scheduler")["spec"]["dnsNames"]


@pytest.mark.parametrize("name", TLS)
def test_certificates_are_of_an_authority_whose_own_is_a_secret_of_cert_manager(name):
    rendered = variant(name)
    authority = rendered.one("Certificate", "sealpool-ca")["spec"]
    assert authority["isCA"] is True
    assert rendered.one("Issuer", "sealpool")["spec"]["ca"]["secretName"] == authority["secretName"]
    issuers = {issuer["metadata"]["name"] for issuer in rendered.of("Issuer")}
    for certificate in rendered.of("Certificate"):
        assert certificate["spec"]["issuerRef"]["name"] in issuers
        assert certificate["spec"]["issuerRef"]["name"] == (
            "sealpool-self-signed" if certificate["metadata"]["name"] == "sealpool-ca" else "sealpool"
        )


@pytest.mark.parametrize("name", TLS)
def test_a_renewed_certificate_has_weeks_to_be_taken_up_in(name):
    for certificate in variant(name).of("Certificate"):
        lasts, before = (_hours(certificate["spec"][field]) for field in ("duration", "renewBefore"))
        assert 14 * 24 <= before <= lasts / 2


def test_another_issuer_can_be_named():
    patch = yaml.safe_dump(
        [{"op": "replace", "path": "/spec/issuerRef", "value": {"kind": "ClusterIssuer", "name": "ours"}}]
    )
    patches = [{"target": {"kind": "Certificate", "labelSelector": "sealpool-certificate"}, "patch": patch}]
    rendered = composed("overlays/cpu", "components/tls", fields={"patches": patches})
    for name in (*SERVICES, "jobs"):
        assert rendered.one("Certificate", name)["spec"]["issuerRef"] == {"kind": "ClusterIssuer", "name": "ours"}


@pytest.mark.parametrize("name", VARIANTS)
def test_traces_go_to_a_collector_where_they_are_asked_for_and_nowhere_else(name):
    for service in SERVICES:
        settings = settings_of(variant(name), service)
        if "components/tracing" in VARIANTS[name]:
            # The policy that lets them out is tried in test_kubernetes_network.
            assert settings.trace_endpoint == "opentelemetry-collector.observability:4317"
            assert 0 < settings.trace_sample_share < 1
        else:
            assert settings.trace_endpoint == ""


def test_every_image_has_what_traces_need():
    assert all("tracing" in extras for extras in EXTRAS.values())


@pytest.mark.parametrize("name", PLAIN)
def test_without_tls_no_certificate_is_needed(name):
    assert not variant(name).of("Certificate")
    for service in SERVICES:
        assert settings_of(variant(name), service).tls_certificate is None


@pytest.mark.parametrize("name", VARIANTS)
def test_learners_are_as_many_as_their_queue_asks_for(name):
    scaler = variant(name).one("HorizontalPodAutoscaler", "learner")
    assert scaler["apiVersion"] == "autoscaling/v2"
    spec = scaler["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "learner"}
    assert 1 <= spec["minReplicas"] < spec["maxReplicas"]
    (metric,) = spec["metrics"]
    assert metric["type"] == "Pods"
    assert metric["pods"]["metric"]["name"] == _adapter_rule()["name"]["as"]
    most_a_learner = settings_of(variant(name), "learner").max_trainings
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": str(most_a_learner)}
    assert "replicas" not in variant(name).service_pods("learner").owner["spec"], "they are the autoscaler's"


def _adapter_rule():
    lines = (KUBERNETES / "base" / "learner" / "autoscaler.yaml").read_text().splitlines()
    rules = "\n".join(line.removeprefix("#") for line in lines if line.startswith("#   "))
    (rule,) = yaml.safe_load(rules)["rules"]["custom"]
    return rule


def test_the_adapter_s_rule_in_the_comment_adds_up_the_learners_queue_and_what_it_does():
    rule = _adapter_rule()
    exported = set(
        re.findall(r"^\| `(sealpool_learner_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    asked = set(re.findall(r"sealpool_learner_\w+", rule["metricsQuery"]))
    assert asked == {"sealpool_learner_running_trainings", "sealpool_learner_waiting_trainings"} <= exported
    assert rule["seriesQuery"].partition("{")[0] in asked
    assert rule["resources"]["overrides"].keys() == {"namespace", "pod"}


@pytest.mark.parametrize("name", VARIANTS)
def test_rounds_enough_are_under_way_to_fill_the_learners_queue(name):
    most = variant(name).one("HorizontalPodAutoscaler", "learner")["spec"]["maxReplicas"]
    trainings = most * settings_of(variant(name), "learner").max_trainings
    assert settings_of(variant(name), "scheduler").round_threads > trainings


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_asks_for_more_memory_than_one_large_node_has(name):
    for pods in variant(name).pods():
        assert quantity(pods.container["resources"]["limits"]["memory"]) <= 64 * 2**30


def test_monitors_select_the_objects_that_are_there():
    rendered = variant("gpu with all")
    services = {one["metadata"]["name"]: one["metadata"]["labels"] for one in rendered.of("Service")}
    scraped = set()
    for monitor in rendered.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"].get("matchLabels", {})
        chosen = {name for name, labels in services.items() if selector.items() <= labels.items()}
        scraped |= chosen
    for monitor in rendered.of("PodMonitor"):
        selector = monitor["spec"]["selector"].get("matchLabels", {})
        scraped |= {pods.name for pods in rendered.pods() if selector.items() <= pods.labels.items()}
    assert set(SERVICES) <= scraped


def test_boards_come_as_config_maps_that_the_sidecar_loads():
    boards = [
        config
        for config in variant("gpu with all").of("ConfigMap")
        if config["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    assert len(boards) == 4


def test_comments_of_the_gpu_overlay_name_its_options():
    text = (KUBERNETES / "overlays" / "gpu" / "kustomization.yaml").read_text()
    assert re.search("runtime-class.*node selector and tolerations", text, re.DOTALL)
