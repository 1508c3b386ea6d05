"""The three services as a cluster keeps them, and how it restarts each: as StatefulSet or as Deployment."""

import time
from pathlib import Path

from tests.deploy.rolling_names import NameServer
from tests.support.processes import ServiceProcess, free_port

_HOSTS = ("127.0.0.2", "127.0.0.3")
"""Of a pod, and of the one that replaces it: both are up for a while, on the same port as in a cluster."""


class StatefulPod:
    """The index server: one process, whose folder only it may have, so it is gone before it comes back."""

    def __init__(self, module: str, folder: Path, *flags: str) -> None:
        self._process = ServiceProcess(module, folder, *flags)
        self.module = module
        self.target = f"dns:///{self._process.address}"
        self.drained: list[float] = []

    def start(self) -> None:
        """Start and return once it serves."""
        self._process.start()

    def restart(self) -> None:
        """Stop it as Kubernetes does, and start it anew."""
        self.drained.append(_stopped(self._process))
        self._process.start()

    def stop(self) -> None:
        """End it."""
        _stopped(self._process)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class Deployment:
    """A service whose new pod serves before the old one is stopped. Clients find it by a name."""

    def __init__(self, module: str, folder: Path, *flags: str, names: NameServer) -> None:
        port = free_port()
        self._processes = [ServiceProcess(module, folder, *flags, address=f"{host}:{port}") for host in _HOSTS]
        self._name = f"{module.replace('_', '-')}.test"
        self._names = names
        self.module = module
        self.target = names.target(self._name, port)
        self.drained: list[float] = []

    def start(self) -> None:
        """Start one pod and return once it serves."""
        self._processes[0].start()
        self._tell()

    def restart(self) -> None:
        """Start the new pod, take the old one from the name, and stop it."""
        old, new = self._processes
        new.start()
        self._processes = [new, old]
        self._tell()
        self.drained.append(_stopped(old))

    def stop(self) -> None:
        """End the pod."""
        _stopped(self._processes[0])

    def kill(self) -> None:
        """End every pod at once."""
        for process in self._processes:
            process.kill()

    def _tell(self) -> None:
        self._names.set(self._name, [self._processes[0].address.partition(":")[0]])


class Cluster:
    """The three services, wired to each other by the names that clients use too."""

    def __init__(self, folder: Path, names: NameServer, *, database_url: str) -> None:
        # How full the disk of the machine is that runs the tests is no matter here.
        disk = ("--disk-throttle-share", "1", "--disk-refuse-share", "1")
        self.index = StatefulPod("index_server", folder, *disk)
        self.learner = Deployment("learner", folder, "--index-server", self.index.target, names=names)
        self.scheduler = Deployment(
            *("scheduler", folder, "--index-server", self.index.target, "--learner", self.learner.target),
            *("--database-url", database_url),
            names=names,
        )
        self.services = (self.index, self.learner, self.scheduler)

    def start(self) -> None:
        """Start all three."""
        for service in self.services:
            service.start()

    def stop(self) -> None:
        """Stop all three, callers first."""
        for service in reversed(self.services):
            service.stop()

    def kill(self) -> None:
        """Kill whatever still runs."""
        for service in self.services:
            service.kill()


def _stopped(process: ServiceProcess) -> float:
    started = time.monotonic()
    code = process.stop()
    if code != 0:
        raise AssertionError(f"{process.module} ended with {code}:\n{process.log.read_text()[-4000:]}")
    return time.monotonic() - started
