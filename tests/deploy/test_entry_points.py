"""The images' entry points, run as a container engine would: user, flags, environment, read-only tree, PID 1."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import container_round
from tests.deploy.container_runs import Container, Network, make_environment
from tests.deploy.containerfile import ROOT
from tests.deploy.test_compose_secrets import draw

NAMES = ("index-server", "learner", "scheduler")
UNPROVED = (
    "not root: that the entry points run as user 10001, as PID 1, on a read-only root file system and without "
    "capabilities cannot be shown; run this test as root, in a container with CAP_SYS_ADMIN if need be"
)


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    missing = [tool for tool in ("unshare", "nsenter", "setpriv") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        why = f"{', '.join(missing)} missing: apt-get install util-linux" if missing else UNPROVED
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    folder = tmp_path_factory.mktemp("containers")
    shutil.copy(ROOT / "deploy" / "compose" / "secrets.sh", folder)
    secrets = draw(folder)
    # No PostgreSQL listens in the test's network: the scheduler keeps its SQLite where the volume is.
    (secrets / "scheduler_settings.yaml").chmod(0o644)
    (secrets / "scheduler_settings.yaml").write_text('database_url: ""\n')
    make_environment(folder)
    network = Network()
    started = {name: Container(name, folder, secrets, network) for name in NAMES}
    try:
        for container in started.values():
            container.start()
        for container in started.values():
            container.wait_until_healthy()
        yield started
    finally:
        for container in started.values():
            container.kill()
        network.close()


def test_each_runs_as_the_numbered_user_without_rights_as_pid_1(containers: dict[str, Container]) -> None:
    for container in containers.values():
        status = container.status()
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert status["Groups"] == ""
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert status["NSpid"].split()[-1] == "1"


def test_nothing_can_be_written_but_the_volume_and_memory(containers: dict[str, Container]) -> None:
    for container in containers.values():
        assert container.writable() == {"/var/lib/sealpool", "/tmp", "/proc", "/dev/shm"} | devices()
        for path in ("/x", "/opt/sealpool/x", "/opt/sealpool/lib/x", "/etc/x", "/usr/x", "/run/secrets/x", "/dev/x"):
            refused = container.execute("touch", path)
            assert refused.returncode != 0, path
        assert container.execute("sh", "-c", "echo >/run/secrets/tokens").returncode != 0
        assert container.execute("touch", "/tmp/x").returncode == 0
        ran = container.execute("sh", "-c", "printf '#!/bin/sh\n' >/tmp/y; chmod +x /tmp/y; /tmp/y")
        assert ran.returncode != 0, "/tmp holds programs"


def devices() -> set[str]:
    from tests.deploy.container_runs import DEVICES

    return {f"/dev/{device}" for device in DEVICES}


def test_a_round_goes_through_all_three_by_compose_names_and_tokens(containers: dict[str, Container]) -> None:
    token = (containers["scheduler"].secrets / "admin_token").read_text().strip()
    script = Path(container_round.__file__).read_text()
    answer = containers["scheduler"].execute("python", "-c", script, SEALPOOL_TOKEN=token)
    assert answer.returncode == 0, answer.stderr
    picked = answer.stdout.split()
    assert len(picked) == 7
    assert not set(picked) & {f"item-{n}" for n in range(20)}
    listed = containers["index-server"].execute("sealpool", "pool", "list", "--json", SEALPOOL_TOKEN=token)
    assert '"numbers"' in listed.stdout, listed.stderr


def test_nobody_gets_in_without_a_token(containers: dict[str, Container]) -> None:
    refused = containers["index-server"].execute("sealpool", "pool", "list")
    assert refused.returncode != 0
    assert "token" in refused.stderr


def test_the_services_stop_by_sigterm_with_0_and_their_data_is_theirs(containers: dict[str, Container]) -> None:
    tree = containers["scheduler"].folder / "opt"
    for name in reversed(NAMES):
        assert containers[name].stop() == 0, containers[name].log.read_text()[-2000:]
    for container in containers.values():
        kept = [container.data, *container.data.rglob("*")]
        assert len(kept) > 1, f"{container.name} kept nothing"
        assert {(path.lstat().st_uid, path.lstat().st_gid) for path in kept} == {(10001, 10001)}
    assert not [path for path in tree.rglob("__pycache__") if not path.is_symlink()], "bytecode was written"
    assert {path.lstat().st_uid for path in tree.rglob("*")} == {0}
