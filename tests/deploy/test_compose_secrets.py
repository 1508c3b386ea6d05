"""The script that draws compose's secrets, run as it is."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scheduler.settings import SchedulerSettings
from sealpool.runtime.tokens import Role, digest, read_tokens
from tests.deploy.containerfile import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "deploy" / "compose" / "secrets.sh", folder)
    return folder


@pytest.fixture(scope="module")
def secrets(folder: Path) -> Path:
    return draw(folder)


def draw(folder: Path) -> Path:
    environment = {**os.environ, "SEALPOOL": f"{sys.executable} -m sealpool.cli.main", "PYTHONPATH": str(ROOT)}
    subprocess.run([folder / "secrets.sh"], check=True, env=environment, capture_output=True, text=True)
    return folder / "secrets"


def test_every_secret_of_compose_is_drawn(secrets: Path) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    named = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    drawn = {path.name for path in secrets.iterdir()}
    assert drawn == named | {"admin_token"}


def test_the_tokens_are_those_of_the_file_with_the_roles_that_are_needed(secrets: Path) -> None:
    known = {token.sha256: token for token in read_tokens(secrets / "tokens.json")}
    roles = {"admin": Role.ADMIN, "scheduler": Role.WRITE, "learner": Role.ADMIN}
    for name, role in roles.items():
        token = known[digest((secrets / f"{name}_token").read_text().strip())]
        assert (token.name, token.role) == (name, role)


def test_the_scheduler_is_given_the_password_of_postgresql(secrets: Path) -> None:
    url = yaml.safe_load((secrets / "scheduler_settings.yaml").read_text())["database_url"]
    password = (secrets / "postgresql_password").read_text()
    assert len(password) == 48
    assert url == f"postgresql+psycopg://sealpool:{password}@postgresql/sealpool"
    assert password not in repr(SchedulerSettings(database_url=url))


def test_others_on_the_machine_cannot_look_and_the_containers_can(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}


def test_a_second_run_changes_nothing_and_one_that_lacks_a_file_draws_that_alone(folder: Path, secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    (secrets / "grafana_password").unlink()
    draw(folder)
    after = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"grafana_password"}


def test_no_passwords_are_alike(secrets: Path) -> None:
    assert (secrets / "grafana_password").read_text() != (secrets / "postgresql_password").read_text()
