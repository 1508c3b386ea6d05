"""The ConfigMaps hold real settings, with values that the services take, and of files that are there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.runtime.addresses import is_loopback
from tests.deploy.manifests import KUBERNETES, ROOT, SERVICES, VARIANTS, composed, variant
from tests.deploy.secret_keys import SECRETS
from tests.deploy.service_settings import CLASSES, settings_of

OTHER_VARIABLES = {"OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX", "HF_HOME"}
PORTS = {"listen": "grpc", "metrics_listen": "metrics", "health_listen": "health", "http_listen": "http"}


@pytest.fixture(params=VARIANTS)
def rendered(request):
    return variant(request.param)


def test_every_variable_of_a_service_is_a_setting_of_it(rendered):
    for name in SERVICES:
        prefix = CLASSES[name].model_config["env_prefix"]
        known = {f"{prefix}{field}".upper() for field in CLASSES[name].model_fields}
        assert rendered.environment(rendered.service_pods(name)).keys() <= known | OTHER_VARIABLES, name


def test_every_value_is_one_that_the_service_takes(rendered):
    for name in SERVICES:
        assert settings_of(rendered, name).model_fields_set


def test_a_changed_setting_restarts_who_reads_it(rendered):
    for pods in rendered.pods():
        for source in pods.container["envFrom"]:
            assert re.search(r"-[a-z0-9]{10}$", source["configMapRef"]["name"]), "a hash of the content"


def test_every_service_listens_where_its_ports_say(rendered):
    for name in SERVICES:
        settings, container = settings_of(rendered, name), rendered.service_pods(name).container
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for setting, port in PORTS.items():
            address = getattr(settings, setting, "")
            assert bool(address) == (port in ports), (name, setting)
            if address:
                assert address == f"0.0.0.0:{ports[port]}"


def test_services_lead_to_named_ports_of_their_own_pods(rendered):
    for service in rendered.of("Service"):
        selector = service["spec"]["selector"]
        (pods,) = (pods for pods in rendered.pods() if selector.items() <= pods.labels.items())
        ports = {port["name"]: port["containerPort"] for port in pods.container["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], service["metadata"]["name"]


def test_each_service_is_scraped_under_one_service_name_alone(rendered):
    for name in SERVICES:
        scraped = [
            service["metadata"]["name"]
            for service in rendered.of("Service")
            if service["spec"]["selector"]["app.kubernetes.io/name"] == name
            and any(port["name"] == "metrics" for port in service["spec"]["ports"])
        ]
        assert scraped == [name]


def test_where_there_are_replicas_a_headless_service_names_them_and_clients_spread_their_calls(rendered):
    for name in ("learner", "scheduler"):
        assert rendered.one("Service", name)["spec"]["clusterIP"] == "None"
        assert 60 <= settings_of(rendered, name).connection_age_s <= 900, "or new replicas would get no calls"
    assert settings_of(rendered, "scheduler").learner == "dns:///learner:7302"
    governing = rendered.service_pods("index-server").owner["spec"]["serviceName"]
    assert rendered.one("Service", governing)["spec"]["clusterIP"] == "None"


def test_services_are_called_where_they_are(rendered):
    targets = [(name, setting) for name in SERVICES for setting in ("index_server", "learner")]
    for name, setting in targets:
        target = getattr(settings_of(rendered, name), setting, None)
        if target:
            host, _, port = target.removeprefix("dns:///").partition(":")
            (found,) = (one for one in rendered.one("Service", host)["spec"]["ports"] if one["name"] == "grpc")
            assert found["port"] == int(port)


def test_targets_are_such_as_the_client_takes(rendered):
    target = settings_of(rendered, "scheduler").learner
    assert not is_loopback(target)
    Connection(target, options=ClientOptions(token="a-token", insecure=True)).close()


def test_every_file_that_a_setting_names_is_mounted(rendered):
    for name in SERVICES:
        mounts, settings = rendered.service_pods(name).mounts, settings_of(rendered, name)
        for setting in settings.model_fields_set:
            path = getattr(settings, setting)
            if not isinstance(path, Path) or setting == "data_dir":
                continue
            volume = mounts[str(path.parent)]["secret"]
            keys = {item["path"] for item in volume.get("items", [])} or SECRETS[volume["secretName"]]
            assert path.name in keys, (name, setting)
        assert mounts[str(settings.data_dir)]


def test_tokens_are_asked_for_everywhere(rendered):
    for name in SERVICES:
        assert settings_of(rendered, name).tokens_file == Path("/etc/sealpool/tokens/tokens.json")
    for name in ("learner", "scheduler"):
        assert settings_of(rendered, name).services_token_file == Path(f"/etc/sealpool/tokens/{name}.token")


def test_a_pod_sees_only_the_keys_of_a_secret_that_it_needs(rendered):
    for pods in rendered.pods():
        for volume in pods.mounts.values():
            if volume.get("secret", {}).get("secretName") == "sealpool-tokens":
                keys = {item["key"] for item in volume["secret"]["items"]}
                assert keys <= {"tokens.json", f"{pods.name}.token"}


def test_secrets_are_named_and_never_in_the_manifests(rendered):
    assert not rendered.of("Secret")
    for pods in rendered.pods():
        for volume in pods.mounts.values():
            if "secret" in volume:
                named = {item["key"] for item in volume["secret"].get("items", [])}
                assert named <= SECRETS[volume["secret"]["secretName"]]
                assert volume["secret"]["defaultMode"] == 0o440, "for the group, which the pod has, and nobody else"
        for variable in pods.container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                assert reference["key"] in SECRETS[reference["name"]]
            else:
                is_path = str(variable.get("value", "")).startswith("/etc/sealpool/")
                assert is_path or not re.search(r"TOKEN|PASSWORD|SECRET|URL|KEY", variable["name"])


def test_no_config_map_holds_what_is_to_be_secret(rendered):
    for config in rendered.of("ConfigMap"):
        for name, value in config["data"].items():
            if re.search(r"TOKEN|PASSWORD|SECRET|DATABASE_URL|_KEY$", name):
                assert value.startswith("/etc/sealpool/"), name
            assert "BEGIN" not in value or "PRIVATE KEY" not in value
            assert not re.search(r"://[^/\s:]+:[^/\s@]+@", value), name


def test_a_secret_volume_is_a_directory_so_that_a_changed_secret_arrives(rendered):
    for pods in rendered.pods():
        assert not any("subPath" in mount for mount in pods.container["volumeMounts"])


def test_images_are_ours_at_the_version_of_the_project(rendered):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for pods in rendered.pods():
        name, _, tag = pods.container["image"].partition(":")
        assert re.fullmatch(r"sealpool/(index-server|learner|scheduler)(-gpu)?", name)
        assert tag == version
        assert pods.container["imagePullPolicy"] == "IfNotPresent"


def test_every_image_is_built_by_the_containerfile(rendered):
    targets = set(re.findall(r"^FROM .* AS (\S+)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE))
    for pods in rendered.pods():
        assert pods.container["image"].removeprefix("sealpool/").partition(":")[0] in targets


def test_a_user_s_overlay_puts_a_registry_before_all_names():
    names = ("index-server-gpu", "learner-gpu", "scheduler")
    images = [{"name": f"sealpool/{one}", "newName": f"registry.example.com/{one}", "newTag": "9"} for one in names]
    for pods in composed("overlays/gpu", "components/jobs", fields={"images": images}).pods():
        assert re.fullmatch(r"registry\.example\.com/[a-z-]+:9", pods.container["image"])


def test_the_tag_stands_in_kustomizations_alone():
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            assert not re.search(r"image: \S+:", path.read_text()), path
        yaml.compose_all(path.read_text())
