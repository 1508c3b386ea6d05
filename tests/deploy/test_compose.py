"""What compose.yaml promises: its schema, and a policy of ours."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import containerfile
from tests.deploy.containerfile import ROOT
from tests.deploy.service_settings import CLASSES

COMPOSE = ROOT / "deploy" / "compose.yaml"
OURS = ("index-server", "learner", "scheduler")
ALL = (*OURS, "postgresql", "prometheus", "grafana")
ARROWS = {
    ("learner", "index-server"),
    ("scheduler", "index-server"),
    ("scheduler", "learner"),
    ("scheduler", "postgresql"),
    ("prometheus", "index-server"),
    ("prometheus", "learner"),
    ("prometheus", "scheduler"),
    ("grafana", "prometheus"),
}
"""Who calls whom, in the design and to watch it."""

each_service = pytest.mark.parametrize("name", ALL)
each_of_ours = pytest.mark.parametrize("name", OURS)


@cache
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def service(name: str) -> dict[str, Any]:
    described: dict[str, Any] = compose()["services"][name]
    return described


def environment(name: str) -> Mapping[str, str]:
    return {key: str(value) for key, value in service(name)["environment"].items()}


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_it_is_what_the_compose_specification_allows() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_it_runs_the_three_services_and_what_they_need() -> None:
    assert set(compose()["services"]) == set(ALL)


@each_service
def test_a_service_can_write_its_volumes_and_memory_alone(name: str) -> None:
    described = service(name)
    assert described["read_only"] is True
    assert any(one.startswith("/tmp:") for one in described["tmpfs"])
    mounted = [volume.split(":") for volume in described["volumes"]]
    named = [parts for parts in mounted if not parts[0].startswith(".")]
    assert [parts[0] for parts in named] == [name]
    assert name in compose()["volumes"]
    for source, _, *options in (parts for parts in mounted if parts[0].startswith(".")):
        assert options == ["ro"]
        assert source.startswith("./compose/") or (ROOT / "deploy" / source).is_dir()


@each_of_ours
def test_the_volume_of_a_service_lies_where_the_image_keeps_its_data(name: str) -> None:
    assert f"{name}:{containerfile.image(name).folder}" in service(name)["volumes"]
    assert service(name)["user"] == containerfile.image(name).user


@each_service
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    described = service(name)
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", described["user"])
    for forbidden in ("privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "volumes_from", "env_file"):
        assert forbidden not in described


@each_service
def test_a_service_has_limits_and_is_started_again(name: str) -> None:
    assert {"memory", "cpus", "pids"} <= set(service(name)["deploy"]["resources"]["limits"])
    assert service(name)["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(service(name)["logging"]["options"])


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    for published in service(name).get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", published)
    assert (name == "postgresql") == (not service(name).get("ports"))


def test_networks_join_those_alone_who_call_each_other() -> None:
    members = {
        network: {name for name in ALL if network in service(name)["networks"]} for network in compose()["networks"]
    }
    joined = {pair for there in members.values() for pair in combinations(sorted(there), 2)}
    assert joined == {tuple(sorted(arrow)) for arrow in ARROWS}
    assert all("default" not in service(name)["networks"] for name in ALL)
    for network, there in members.items():
        inside = bool((compose()["networks"][network] or {}).get("internal"))
        assert inside == (len(there) == 2), f"{network} joins {there}"
        assert inside or all(service(name).get("ports") for name in there)


def test_images_have_versions_and_ours_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ALL:
        image, _, tag = service(name)["image"].partition(":")
        assert re.match(r"v?\d+\.\d+", tag), f"{image} has no version"
        assert "." not in image, f"{image} names a registry"
    for name in OURS:
        assert service(name)["image"] == f"sealpool/{name}:{version}"
        build = service(name)["build"]
        assert build["target"] == name
        assert (COMPOSE.parent / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).exists()
        assert set(build["args"]) <= set(containerfile.arguments())


@each_service
def test_no_secret_is_in_an_environment_and_each_is_a_file_that_git_ignores(name: str) -> None:
    for variable in environment(name) if "environment" in service(name) else ():
        if re.search(r"PASSWORD|TOKEN|SECRET|DATABASE_URL", variable):
            assert variable.endswith("_FILE"), variable
    for secret in service(name).get("secrets", []):
        file = compose()["secrets"][secret]["file"]
        ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", f"deploy/{file}"], cwd=ROOT)
        assert ignored.returncode == 0, f"{file} could be committed"


def test_every_secret_file_named_in_an_environment_or_a_flag_is_mounted() -> None:
    for name in ALL:
        said = [*environment(name).values()] if "environment" in service(name) else []
        said += service(name).get("command", [])
        named = {text.removeprefix("/run/secrets/") for text in said if text.startswith("/run/secrets/")}
        assert named == set(service(name).get("secrets", []))


@each_of_ours
def test_health_is_grpcs_own_at_the_port_of_the_service(name: str) -> None:
    module = containerfile.MODULES[name]
    listen = environment(name)[f"SEALPOOL_{module.upper()}_LISTEN"]
    assert service(name)["healthcheck"]["test"] == ["CMD", "python", "/health.py", f"127.0.0.1:{port(listen)}"]
    assert "./compose/health.py:/health.py:ro" in service(name)["volumes"]
    assert (COMPOSE.parent / "compose" / "health.py").exists()


def test_nothing_is_used_that_podman_compose_passes_over() -> None:
    assert not {"configs", "include", "models"} & compose().keys()
    assert not any({"configs", "extends", "develop", "post_start"} & service(name).keys() for name in ALL)


def filled(text: str) -> str:
    """As compose would fill in variables where none is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@each_of_ours
def test_settings_are_such_as_the_service_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, filled(value))
    settings = CLASSES[name]()
    prefix = settings.model_config["env_prefix"].upper()
    known = {f"{prefix}{field.upper()}" for field in type(settings).model_fields}
    given = {variable for variable in environment(name) if variable.startswith("SEALPOOL_")}
    assert given <= known
    assert {f"{prefix}{field.upper()}" for field in settings.model_fields_set} == given


@each_of_ours
def test_threads_and_memory_follow_the_limits_and_not_the_machine(name: str) -> None:
    limits = service(name)["deploy"]["resources"]["limits"]
    threads = {"index-server": "SEALPOOL_INDEX_SERVER_SEARCH_THREADS", "learner": "SEALPOOL_LEARNER_THREADS"}
    for variable in filter(None, ("OMP_NUM_THREADS", threads.get(name))):
        assert environment(name)[variable] == limits["cpus"]
        assert int(filled(limits["cpus"])) > 0


def test_the_learner_s_caches_and_trainings_fit_into_its_limit() -> None:
    def told(setting: str) -> int:
        return int(filled(environment("learner")[f"SEALPOOL_LEARNER_{setting}"]))

    vectors: int = CLASSES["learner"].model_fields["vector_cache_bytes"].default
    works = max(told("TRAINING_MEMORY_BYTES"), told("PROPAGATION_MEMORY_BYTES"))
    limit = filled(service("learner")["deploy"]["resources"]["limits"]["memory"])
    assert 1.25 * told("CANDIDATE_CACHE_BYTES") + vectors + works + 2 * 2**30 <= int(limit.removesuffix("g")) * 2**30


def test_a_service_starts_once_those_that_it_calls_are_healthy() -> None:
    for name in OURS:
        called = {target for caller, target in ARROWS if caller == name}
        waits = service(name).get("depends_on", {})
        assert waits == {one: {"condition": "service_healthy"} for one in called}
    assert all("healthcheck" in service(name) for name in ALL)


@each_of_ours
def test_a_stop_leaves_time_for_every_stage(name: str) -> None:
    from sealpool.runtime.settings import ServiceSettings

    grace_s = ServiceSettings.model_fields["grace_s"].default
    assert int(service(name)["stop_grace_period"].removesuffix("s")) >= 2 * grace_s


def test_prometheus_scrapes_what_the_services_export_and_reads_the_rules() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yaml").read_text())
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    listens = {
        name: environment(name)[f"SEALPOOL_{containerfile.MODULES[name].upper()}_METRICS_LISTEN"] for name in OURS
    }
    assert scraped == {name: [f"{name}:{port(listen)}"] for name, listen in listens.items()}
    rules = config["rule_files"][0].removesuffix("/*.yaml")
    assert f"./prometheus/rules:{rules}:ro" in service("prometheus")["volumes"]


def test_prometheus_takes_its_configuration_with_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: apt-get install prometheus")
    text = (ROOT / "deploy" / "compose" / "prometheus.yaml").read_text()
    config = tmp_path / "prometheus.yaml"
    config.write_text(text.replace("/etc/prometheus/rules", str(ROOT / "deploy" / "prometheus" / "rules")))
    answer = subprocess.run([promtool, "check", "config", str(config)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "rules found" in answer.stdout


def test_grafana_is_given_its_source_and_the_boards() -> None:
    folder = ROOT / "deploy" / "compose" / "grafana"
    source = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"][0]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    provider = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"][0]
    boards = provider["options"]["path"]
    assert f"./grafana/dashboards:{boards}:ro" in service("grafana")["volumes"]
    home = environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy" / "grafana" / "dashboards" / home.removeprefix(f"{boards}/")).exists()
