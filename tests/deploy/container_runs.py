"""A service run as its container would run it, in a plain directory and without a container engine.

Linux gives root what an engine uses: a mount namespace, in which a tree like the image's is put together out of
read-only mounts; a process namespace, in which the service is PID 1; a network namespace, in which compose's names and
ports are free. The user, the environment, the flags and the writable mounts come from the Containerfile and
compose.yaml.
"""

import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.deploy import containerfile
from tests.deploy.containerfile import ROOT

PACKAGES = ("sealpool", "index_server", "learner", "scheduler")
SYSTEM = ("usr", "etc", "bin", "sbin", "lib", "lib64", "sys")
DEVICES = ("null", "zero", "full", "random", "urandom")
DEADLINE_S = 120.0

_UP = """
import fcntl, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
sys.stdout.write("up\\n")
sys.stdout.flush()
sys.stdin.read()
"""


class Network:
    """A network namespace with nothing but a loopback."""

    def __init__(self) -> None:
        command = ["unshare", "--net", sys.executable, "-c", _UP]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n"
        self.path = f"/proc/{self._holder.pid}/ns/net"

    def close(self) -> None:
        self._holder.communicate()


def make_environment(folder: Path) -> None:
    """Make /opt/sealpool: a virtual environment with our packages, and those that are installed here beside them."""
    packages = folder / "opt" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    installed = Path(site.getsitepackages()[0])
    for entry in installed.iterdir():
        if entry.name not in PACKAGES and not entry.name.startswith(("__editable__", "sealpool-")):
            (packages / entry.name).symlink_to(f"/opt/dependencies/{entry.name}")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, packages / package, ignore=shutil.ignore_patterns("__pycache__"))
    programs = folder / "opt" / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    script = programs / "sealpool"
    script.write_text("#!/opt/sealpool/bin/python\nfrom sealpool.cli.main import main\nmain()\n")
    script.chmod(0o755)
    home = Path(sys.base_prefix) / "bin"
    (folder / "opt" / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")


class Container:
    """One service of compose.yaml. `secrets` holds the files that it names, `folder` what `make_environment` made."""

    def __init__(self, name: str, folder: Path, secrets: Path, network: Network) -> None:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "deploy" / "compose.yaml").read_text())
        compose: dict[str, Any] = yaml.safe_load(text)
        self.name = name
        self._compose = compose
        self._service = compose["services"][name]
        self._image = containerfile.image(name)
        self.folder = folder
        self.secrets = secrets
        self._network = network
        self.data = folder / f"{name}-data"
        self.log = folder / f"{name}.log"
        self._unshare: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is PID 1 in a namespace of its own."""
        self.data.mkdir(mode=0o750)
        os.chown(self.data, *self._user)
        script = self.folder / f"{self.name}.sh"
        script.write_text(self._script())
        command = ["nsenter", f"--net={self._network.path}", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with self.log.open("wb") as log:
            self._unshare = subprocess.Popen([*command, "sh", "-eu", str(script)], stdout=log, stderr=log)

    def wait_until_healthy(self) -> None:
        """Return once compose's own health check passes."""
        check = self._service["healthcheck"]["test"][1:]
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            # Before the tree is there, there is nothing to run the check in.
            if self._is_in_its_tree() and self.execute(*check).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name} is not healthy:\n{self.log.read_text()[-4000:]}")

    def execute(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as the engine's exec would."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root"]
        return subprocess.run(
            [*enter, *self._as_user(environment), *command], capture_output=True, text=True, timeout=DEADLINE_S
        )

    @property
    def pid(self) -> int:
        """The service's process, as this machine numbers it."""
        children = self._children()
        assert len(children) == 1, f"{self.name} has ended:\n{self.log.read_text()[-4000:]}"
        return children[0]

    def status(self) -> dict[str, str]:
        """What the kernel says of its process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def writable(self) -> set[str]:
        """Where something is mounted that is not read-only."""
        mounts = [line.split() for line in Path(f"/proc/{self.pid}/mounts").read_text().splitlines()]
        latest = {where: options.split(",") for _, where, _, options, *_ in mounts}  # the last one hides those below
        return {where for where, options in latest.items() if "rw" in options}

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(int(self._service["stop_grace_period"].removesuffix("s")))

    def kill(self) -> None:
        """Kill whatever still runs."""
        if self._unshare is not None and self._unshare.poll() is None:
            self._unshare.kill()
            self._unshare.wait()

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self._unshare is not None
        return self._unshare

    @property
    def _user(self) -> tuple[int, int]:
        user, _, group = str(self._service["user"]).partition(":")
        return int(user), int(group)

    def _children(self) -> list[int]:
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _is_in_its_tree(self) -> bool:
        # Only once the tree is whole does it cease to be root. Without a child, unshare has not forked yet.
        return bool(self._children()) and self.status()["Uid"].split()[0] == str(self._user[0])

    def _as_user(self, environment: Mapping[str, str]) -> Sequence[str]:
        user, group = self._user
        drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        given = {**self._image.environment, **self._service["environment"], **environment}
        variables = [f"{name}={value}" for name, value in given.items()]
        within = ["env", "-i", f"--chdir={self._image.folder}", *variables]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", *drop, *within]

    def _script(self) -> str:
        """Return what puts the tree together and becomes the service."""
        root = self.folder / f"{self.name}-root"
        root.mkdir()
        lines = ["mount --make-rprivate /", f"mount -t tmpfs -o mode=0755,size=4m tmpfs {root}"]
        for name in SYSTEM:
            path = Path(f"/{name}")
            if path.is_symlink():
                lines.append(f"ln -s {path.readlink()} {root / name}")
            elif path.exists():
                lines += _bound(path, root / name)
        if not sys.base_prefix.startswith("/usr"):
            lines += _bound(Path(sys.base_prefix), Path(f"{root}{sys.base_prefix}"))
        lines += _bound(self.folder / "opt", root / "opt" / "sealpool")
        lines += _bound(Path(site.getsitepackages()[0]), root / "opt" / "dependencies")
        for file, target in self._files():
            lines += _bound(file, Path(f"{root}{target}"))
        lines += [f"mkdir -p {root}/proc {root}/dev {root}/tmp {root}{self._image.folder}"]
        lines += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=0755,size=1m tmpfs {root}/dev"]
        for device in DEVICES:
            lines += [f"touch {root}/dev/{device}", f"mount --bind /dev/{device} {root}/dev/{device}"]
        lines += [f"mkdir {root}/dev/shm", f"mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/dev/shm"]
        lines += [f"mount -o remount,ro {root}/dev", f"mount --bind {self.data} {root}{self._image.folder}"]
        for mounted in self._service["tmpfs"]:
            where, _, options = mounted.partition(":")
            lines.append(f"mount -t tmpfs -o nosuid,nodev,noexec,{options} tmpfs {root}{where}")
        lines.append(f"mount -o remount,ro {root}")
        command = [*self._as_user({}), *self._image.entry_point, *self._service.get("command", [])]
        lines += [f"cd {root}", "exec chroot . " + shlex.join(command)]
        return "\n".join(lines) + "\n"

    def _files(self) -> list[tuple[Path, str]]:
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {name}\n" for name in self._compose["services"]))
        users = self.folder / "passwd"
        user, group = self._user
        users.write_text(f"root:x:0:0::/:/bin/sh\nsealpool:x:{user}:{group}::{self._image.folder}:/usr/sbin/nologin\n")
        files = [(hosts, "/etc/hosts"), (users, "/etc/passwd")]
        for secret in self._service["secrets"]:
            file = self.secrets / Path(self._compose["secrets"][secret]["file"]).name
            files.append((file, f"/run/secrets/{secret}"))
        for source, target, *_ in (volume.split(":") for volume in self._service["volumes"]):
            if source.startswith("."):
                files.append((ROOT / "deploy" / source, target))
        return files


def _bound(source: Path, target: Path) -> list[str]:
    make = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p {target.parent}; [ -e {target} ] || touch {target}"
    return [make, f"mount --bind {source} {target}", f"mount -o remount,bind,ro {target}"]
