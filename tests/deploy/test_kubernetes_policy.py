"""What the issue asks of the manifests, a clause a test: pods, their volumes, their ends, and who may disturb them."""

import re

import pytest

from sealpool.runtime.health import LIVENESS
from sealpool.runtime.server import _FLUSH_S
from tests.deploy.manifests import KUBERNETES, ROOT, SERVICES, VARIANTS, commented, quantity, variant
from tests.deploy.service_settings import settings_of

SOURCES = {name: KUBERNETES / "base" / name for name in SERVICES}
READ_BYTES_PER_S = 1_036e6 / 5.438
"""How fast a pool was read at a start: docs/benchmarks.md, restart."""
CLOSING_S = 15
"""Room after the last call: a step of upkeep, threads of rounds."""

PLAIN_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "claimTemplate"}
"""Of those that the restricted profile allows."""


@pytest.fixture(params=VARIANTS)
def rendered(request):
    return variant(request.param)


def test_the_index_server_is_a_stateful_set_of_one_with_a_volume_that_outlives_it(rendered):
    found = rendered.service_pods("index-server")
    assert found.kind == "StatefulSet"
    assert found.owner["spec"]["replicas"] == 1, "two processes cannot own one directory"
    claim = found.mounts["/var/lib/sealpool"]["claimTemplate"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert found.owner["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }


def test_the_volume_s_files_are_not_all_given_to_the_group_at_each_start(rendered):
    for pods in rendered.pods():
        security = pods.spec["securityContext"]
        assert security["fsGroup"] == security["runAsUser"] == security["runAsGroup"] == 10001, pods.name
        assert security["fsGroupChangePolicy"] == "OnRootMismatch", pods.name


def test_the_learner_is_a_deployment_whose_checkpoints_lie_on_a_volume_that_all_of_them_share(rendered):
    found = rendered.service_pods("learner")
    assert found.kind == "Deployment"
    volume = found.mounts[str(settings_of(rendered, "learner").data_dir)]
    claim = rendered.one("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_two_schedulers_stand_by_on_one_postgresql_and_one_is_always_there(rendered):
    found = rendered.service_pods("scheduler")
    assert found.kind == "Deployment"
    assert found.owner["spec"]["replicas"] == 2
    assert found.owner["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    # The lead is an advisory lock, which SQLite in a pod's own directory would not share.
    assert rendered.environment(found)["SEALPOOL_SCHEDULER_DATABASE_URL"] == "sealpool-database/url"


def test_every_service_says_by_native_grpc_probes_how_it_is(rendered):
    for name in SERVICES:
        container = rendered.service_pods(name).container
        port = int(settings_of(rendered, name).health_listen.rpartition(":")[2])
        assert {"name": "health", "containerPort": port} in [
            {key: entry[key] for key in ("name", "containerPort")} for entry in container["ports"]
        ]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["grpc"]["port"] == port, (name, probe)
            assert container[probe]["timeoutSeconds"] >= 5, "a busy server answers later than the default second"


def test_only_a_server_that_hangs_is_restarted_not_one_that_loads_or_drains(rendered):
    for name in SERVICES:
        container = rendered.service_pods(name).container
        assert container["livenessProbe"]["grpc"]["service"] == LIVENESS
        assert "startupProbe" in container, "the others wait for it"
        assert not container["readinessProbe"]["grpc"].get("service"), "ready is what serves"
        assert not container["startupProbe"]["grpc"].get("service"), "started is what has loaded"
        liveness = container["livenessProbe"]
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


def test_the_start_up_probe_is_long_enough_to_load_the_pools_that_the_volume_can_hold(rendered):
    found = rendered.service_pods("index-server")
    claim = found.mounts["/var/lib/sealpool"]["claimTemplate"]
    full_s = quantity(claim["spec"]["resources"]["requests"]["storage"]) / READ_BYTES_PER_S
    probe = found.container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 5 * full_s


def test_the_platform_waits_for_the_staged_stop(rendered):
    for name in SERVICES:
        found = rendered.service_pods(name)
        pause_s = found.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        needs_s = pause_s + settings_of(rendered, name).grace_s + 2 * _FLUSH_S + CLOSING_S
        assert found.spec["terminationGracePeriodSeconds"] >= needs_s, name


def test_addresses_are_taken_from_clients_before_a_server_refuses_calls(rendered):
    for name in SERVICES:
        assert 3 <= rendered.service_pods(name).container["lifecycle"]["preStop"]["sleep"]["seconds"] <= 15


def test_every_service_has_a_disruption_budget_that_holds_no_drain_up(rendered):
    for name in SERVICES:
        budget = rendered.one("PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["selector"]["matchLabels"].items() <= rendered.service_pods(name).labels.items()
        others = [other for other in SERVICES if other != name]
        for other in others:
            assert not budget["selector"]["matchLabels"].items() <= rendered.service_pods(other).labels.items()


def test_every_container_has_requests_and_limits_and_memory_is_not_overcommitted(rendered):
    for pods in rendered.pods():
        requests, limits = (pods.container["resources"][kind] for kind in ("requests", "limits"))
        assert requests["memory"] == limits["memory"], pods.name
        assert quantity(requests["cpu"]) <= quantity(limits["cpu"]), pods.name


def test_the_sizing_rule_stands_where_requests_and_limits_do():
    for name, file in (("index-server", "stateful-set"), ("learner", "deployment"), ("scheduler", "deployment")):
        (comment,) = (text for text in commented(SOURCES[name] / f"{file}.yaml", "resources") if "CPU:" in text)
        assert re.search(r"\d", comment), name
    (index_server,) = (
        text for text in commented(SOURCES["index-server"] / "stateful-set.yaml", "resources") if "CPU:" in text
    )
    assert "1.14 × 4·d·n" in index_server
    assert "| (VmRSS − idle) / raw vectors | 1.141 × |" in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_learner_s_caches_and_trainings_fit_into_its_limit():
    for name in ("cpu", "milvus"):
        settings = settings_of(variant(name), "learner")
        works = max(settings.training_memory_bytes, settings.propagation_memory_bytes)
        assert works > 0, "0 takes a share of the node's memory, not of the limit"
        needs = 1.25 * settings.candidate_cache_bytes + settings.vector_cache_bytes + works + 2 * 2**30
        limits = variant(name).service_pods("learner").container["resources"]["limits"]
        assert needs <= quantity(limits["memory"])


def test_threads_follow_the_limit_and_not_the_node(rendered):
    cores = {}
    for name in SERVICES:
        found = rendered.service_pods(name)
        cores[name] = quantity(found.container["resources"]["limits"]["cpu"])
        assert float(rendered.environment(found)["OMP_NUM_THREADS"]) == cores[name]
    assert settings_of(rendered, "index-server").search_threads == cores["index-server"]
    assert settings_of(rendered, "learner").threads == cores["learner"]
    limits = rendered.service_pods("index-server").container["resources"]["limits"]
    assert settings_of(rendered, "index-server").memory_limit_bytes == quantity(limits["memory"])


def test_replicas_are_spread_over_nodes_and_zones(rendered):
    for name in ("learner", "scheduler"):
        found = rendered.service_pods(name)
        spread = {entry["topologyKey"]: entry for entry in found.spec["topologySpreadConstraints"]}
        assert spread.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for entry in spread.values():
            assert entry["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster of one node runs it too"
            assert entry["labelSelector"]["matchLabels"].items() <= found.labels.items()
            assert entry["matchLabelKeys"] == ["pod-template-hash"]


def test_every_pod_has_a_service_account_of_its_own_and_no_token(rendered):
    accounts = {account["metadata"]["name"]: account for account in rendered.of("ServiceAccount")}
    for pods in rendered.pods():
        assert pods.spec["serviceAccountName"] == pods.name
        assert pods.spec["automountServiceAccountToken"] is False
        assert accounts[pods.name]["automountServiceAccountToken"] is False
        assert pods.spec["enableServiceLinks"] is False
        assert not any("projected" in volume for volume in pods.mounts.values())
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        assert not rendered.of(kind)


def test_the_namespace_enforces_the_restricted_profile(rendered):
    labels = rendered.one("Namespace", "sealpool")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_every_pod_keeps_to_the_restricted_profile(rendered):
    for pods in rendered.pods():
        security, container = pods.spec["securityContext"], pods.container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
        assert container["readOnlyRootFilesystem"] is True
        assert "privileged" not in container
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pods.spec.keys()
        for volume in pods.mounts.values():
            assert volume.keys() - {"name"} <= PLAIN_VOLUMES
        assert "emptyDir" in pods.mounts["/tmp"], "the one place beside the data that can be written"
        assert all("hostPort" not in port for port in pods.container.get("ports", []))


def test_memory_backed_or_boundless_scratch_is_not_used(rendered):
    for pods in rendered.pods():
        for volume in pods.mounts.values():
            if "emptyDir" in volume:
                assert volume["emptyDir"].keys() == {"sizeLimit"}


def test_selectors_find_the_pods_of_their_own_object(rendered):
    for pods in rendered.pods():
        if pods.kind in ("Deployment", "StatefulSet"):
            selector = pods.owner["spec"]["selector"]["matchLabels"]
            assert selector["app.kubernetes.io/name"] == pods.name
            assert selector.items() <= pods.labels.items()


def test_everything_says_what_it_is_part_of(rendered):
    for document in rendered:
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "sealpool", document["metadata"]["name"]
    for pods in rendered.pods():
        assert {"app.kubernetes.io/name", "app.kubernetes.io/component"} <= pods.labels.keys()
