"""The services of an operator who follows the guide."""

from pathlib import Path

from sealpool.client import ClientOptions
from tests.deploy.guide_campaign import ALIAS, CAMPAIGN, POOL, Desk
from tests.deploy.guide_pages import Shell
from tests.deploy.rule_files import ROOT
from tests.support.processes import ServiceProcess, free_port


def make_secrets(folder: Path) -> None:
    """Make a file of tokens, and the token that everybody sends."""
    folder.mkdir()
    Shell({}, {}, folder=folder).run("sealpool token create --name guide --role admin --file tokens.json > token")


class Home:
    """The services of one machine, all their folders and their settings; tokens are asked for."""

    def __init__(
        self, folder: Path, backups: Path, secrets: Path, *, database_url: str = "", words: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        folder.mkdir()
        self._tokens = ("--tokens-file", str(secrets / "tokens.json"))
        self._sent = (*self._tokens, "--services-token-file", str(secrets / "token"))
        self._addresses = {module: f"127.0.0.1:{free_port()}" for module in ("learner", "scheduler")}
        # How full the disk of the machine is that runs the tests is no matter here.
        disk = ("--disk-throttle-share", "1", "--disk-refuse-share", "1")
        roots = ("--snapshot-roots", f'["{backups / "pools"}"]')
        self.index = ServiceProcess("index_server", folder, *self._tokens, *disk, *roots)
        self.call(self.index.address)
        token = (secrets / "token").read_text().strip()
        self.options = ClientOptions(token=token)
        self.desk = Desk(self.index.address, self.scheduler.address, self.options)
        self.shell = Shell(
            {
                "/backups": str(backups),
                "/var/lib/sealpool": str(folder),
                "CAMPAIGN": CAMPAIGN,
                "POOL": POOL,
                "ALIAS": ALIAS,
                **(words or {}),
            },
            {
                "SEALPOOL_INDEX": self.index.address,
                "SEALPOOL_SCHEDULER": self.scheduler.address,
                "SEALPOOL_TOKEN": token,
                "DATABASE": database_url.replace("+psycopg", ""),
            },
            folder=folder if words else ROOT,
        )

    def call(self, index_server: str) -> None:
        """Let the learner and the scheduler, which do not run, call an index server from their next start on."""
        index, address = ("--index-server", index_server), self._addresses
        self.learner = ServiceProcess("learner", self.folder, *self._sent, *index, address=address["learner"])
        self.scheduler = ServiceProcess(
            *("scheduler", self.folder, *self._sent, *index, "--learner", self.learner.address),
            *("--database-url", self.database_url),
            address=address["scheduler"],
        )

    def start(self) -> None:
        """Start all three."""
        for service in (self.index, self.learner, self.scheduler):
            service.start()

    def kill(self) -> None:
        """Kill whatever runs."""
        for service in (self.scheduler, self.learner, self.index):
            service.kill()
