"""What docs/backup-and-restore.md tells operators to do is done here, word for word, with real services."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.scheduler.postgres import binaries, emptied, fresh_database, running_postgres
from tests.deploy.guide_campaign import Known
from tests.deploy.guide_home import Home, make_secrets
from tests.deploy.guide_pages import blocks

PAGE = "backup-and-restore"


@dataclass(frozen=True)
class BackedUp:
    """A backup, what was known when it was made, and after the round that followed, which was not the last."""

    only: str
    backups: Path
    secrets: Path
    home: Home
    known: Known
    picks: list[str]
    known_after: Known
    empty_database: str


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def backed_up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackedUp]:
    root = tmp_path_factory.mktemp("guide")
    (root / "backups" / "pools").mkdir(parents=True)
    make_secrets(root / "secrets")
    with ExitStack() as stack:
        urls = ["", ""]
        if request.param == "PostgreSQL":
            if binaries() is None:
                pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
            server = stack.enter_context(running_postgres())
            urls = [fresh_database(server, name) for name in ("home", "elsewhere")]
        home = Home(root / "home", root / "backups", root / "secrets", database_url=urls[0])
        stack.callback(home.kill)
        home.start()
        home.desk.begin()
        for _ in range(3):
            home.desk.run_round()
        home.shell.run(*blocks(PAGE, "Every night", only=request.param))
        known = home.desk.known()
        picks = home.desk.run_round()
        known_after = home.desk.known()
        home.desk.run_round()
        home.desk.run_round()
        yield BackedUp(
            request.param, root / "backups", root / "secrets", home, known, picks, known_after, empty_database=urls[1]
        )


def test_what_was_lost_with_all_machines_is_there_again_and_goes_on_to_the_same_picks(
    backed_up: BackedUp, tmp_path: Path
) -> None:
    night, database, pools, compare = blocks(PAGE, "Everything was lost", only=backed_up.only)
    elsewhere = Home(
        tmp_path / "elsewhere", backed_up.backups, backed_up.secrets, database_url=backed_up.empty_database
    )
    try:
        elsewhere.shell.run(night, database)
        elsewhere.index.start()
        told = elsewhere.shell.run(night, pools)
        assert "made pool reports@1 with 3,000 items" in told
        elsewhere.learner.start()
        elsewhere.scheduler.start()
        assert elsewhere.shell.run(night, compare) == "", "no difference"
        assert elsewhere.desk.known() == backed_up.known
        assert elsewhere.desk.text("report-0017") == "The text of report-0017."
        assert elsewhere.desk.run_round() == backed_up.picks
        assert elsewhere.desk.known() == backed_up.known_after
    finally:
        elsewhere.kill()


def test_where_the_database_alone_was_lost_candidate_pools_begin_anew_and_go_on_to_the_same_picks(
    backed_up: BackedUp,
) -> None:
    home = backed_up.home
    home.scheduler.stop()
    if backed_up.only == "SQLite":
        shutil.rmtree(home.folder / "scheduler")
    else:
        emptied(home.database_url)
    night, database, *_ = blocks(PAGE, "Everything was lost", only=backed_up.only)
    home.shell.run(night, database)
    home.shell.run(*blocks(PAGE, "Something was lost"))
    home.scheduler.start()
    assert home.desk.run_round() == backed_up.picks
    assert home.desk.known() == backed_up.known_after
