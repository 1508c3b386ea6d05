"""The locks say what constraints.txt and pyproject.toml say, and the page of licences what the locks say."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from deploy.supply_chain.licences import ACCEPTED, PAGE, alternatives
from deploy.supply_chain.lock import CONSTRAINTS, EXTRAS, LOCKS, PYTHON_VERSION, ROOT, normal_name, pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = sorted(EXTRAS)
LINE = re.compile(r"^\| (\S+) \| (\S+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def lock_of(image: str) -> str:
    return (LOCKS / f"{image}.txt").read_text()


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for, with the extras that extras name."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            found += wanted(tuple(requirement.extras)) if requirement.name == "sealpool" else [requirement]
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_holds_what_the_project_asks_for_in_versions_that_it_accepts(image: str) -> None:
    locked = pins(lock_of(image))
    environment = {**default_environment(), "python_full_version": PYTHON_VERSION}
    for requirement in wanted(tuple(EXTRAS[image])):
        if applies(requirement, environment):
            version = locked[normal_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is locked as {version}"


def closure(image: str) -> set[str]:
    """Names of all that an image needs, by what the installed packages say of themselves."""
    environment = {**default_environment(), "python_full_version": PYTHON_VERSION}
    waiting = [one for one in wanted(tuple(EXTRAS[image])) if applies(one, environment)]
    found: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        asked = {(normal_name(requirement.name), extra) for extra in ("", *requirement.extras)}
        if asked <= found:
            continue
        found |= asked
        environments = [{**environment, "extra": extra} for extra in ("", *requirement.extras)]
        further = map(Requirement, metadata.requires(requirement.name) or ())
        waiting.extend(one for one in further if any(applies(one, each) for each in environments))
    return {name for name, _ in found}


def applies(requirement: Requirement, environment: Any) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.mark.parametrize("image", [image for image in IMAGES if not image.endswith("gpu")])
def test_a_lock_holds_what_its_packages_ask_for_and_nothing_else(image: str) -> None:
    assert set(pins(lock_of(image))) == closure(image), "run `make lock`"


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_has_the_versions_that_are_tested(image: str) -> None:
    tested = pins(CONSTRAINTS.read_text())
    differing = {
        name: (version, tested[name])
        for name, version in pins(lock_of(image)).items()
        if name in tested and version.removesuffix("+cpu") != tested[name]
    }
    assert not differing, "run `make lock`"


@pytest.mark.parametrize("image", IMAGES)
def test_every_locked_package_has_hashes_and_nothing_else_is_in_a_lock(image: str) -> None:
    blocks = re.split(r"\n(?=\S)", lock_of(image).strip())
    assert len(blocks) == len(pins(lock_of(image)))
    for block in blocks:
        head, *hashes = [line.removesuffix("\\").strip() for line in block.splitlines()]
        assert re.fullmatch(r"[\w.-]+==\S+", head), head
        assert hashes, f"{head} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), head


def test_only_one_build_of_faiss_is_in_an_image() -> None:
    for image in IMAGES:
        assert sum(name.startswith("faiss") for name in pins(lock_of(image))) == image.startswith("index-server")


def test_every_lock_is_audited_and_described() -> None:
    targets = (ROOT / "Makefile").read_text().split("\n\n")
    (audit,) = (target for target in targets if re.search("^audit:", target, re.MULTILINE))
    (sbom,) = (target for target in targets if re.search("^sbom:", target, re.MULTILINE))
    # The learner's is covered by the other's: see below.
    assert set(re.findall(r"for image in ([^;]+);", audit)[0].split()) == set(IMAGES) - {"learner"}
    assert "pip-audit --strict" in audit
    assert "for lock in deploy/locks/*.txt" in sbom
    assert {path.stem for path in LOCKS.iterdir()} == set(IMAGES)


def test_what_is_audited_for_the_gpu_learner_covers_the_other() -> None:
    cpu, gpu = pins(lock_of("learner")), pins(lock_of("learner-gpu"))
    assert cpu.pop("torch") == f"{gpu['torch']}+cpu"
    assert cpu.items() <= gpu.items()


def test_the_page_of_licences_lists_each_locked_package_and_where_it_is() -> None:
    listed = {
        (name, version): set(IMAGES) if where == "all" else set(where.split(", "))
        for name, version, _, where in LINE.findall(PAGE.read_text())
        if version not in ("version", "---")
    }
    held: dict[tuple[str, str], set[str]] = {}
    for image in IMAGES:
        for package in pins(lock_of(image)).items():
            held.setdefault(package, set()).add(image)
    assert listed == held, "run `make licences`"


def test_every_licence_is_one_that_somebody_accepted() -> None:
    licences = {licence for name, _, licence, _ in LINE.findall(PAGE.read_text()) if name != "package"}
    assert licences
    assert all(alternatives(licence) <= ACCEPTED for licence in licences)


def test_a_licence_that_nobody_looked_at_is_told_from_the_others() -> None:
    assert alternatives("MIT AND (AGPL-3.0-only OR Apache-2.0)") - ACCEPTED == {"AGPL-3.0-only"}


@pytest.mark.parametrize("image", [image for image in IMAGES if not image.endswith("gpu")])
def test_pip_accepts_a_lock_and_finds_each_package_of_it_installed(image: str, tmp_path: Path) -> None:
    # The tests' environment has all of what the images have, but for the build of torch: pip has nothing to fetch.
    lock = tmp_path / "lock.txt"
    lock.write_text(re.sub(r"^torch==.*\n(?:    .*\n)*", "", lock_of(image), flags=re.MULTILINE))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--require-hashes"]
    command += ["--quiet", "--disable-pip-version-check", "--requirement", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
