"""What docs/erasing.md, and docs/backup-and-restore.md of moving pools, tell operators to do is done here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.guide_campaign import ALIAS, CAMPAIGN, Desk
from tests.deploy.guide_home import Home, make_secrets
from tests.deploy.guide_pages import blocks

ERASED, WHO = "report-0003", "ada"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    make_secrets(tmp_path / "secrets")
    (tmp_path / "backups" / "pools").mkdir(parents=True)
    words = {"NAME": WHO, "ID": ERASED}
    home = Home(tmp_path / "home", tmp_path / "backups", tmp_path / "secrets", words=words)
    try:
        home.start()
        home.desk.begin()
        home.desk.run_round()
        yield home
    finally:
        home.kill()


def test_a_person_is_erased_from_pools_campaigns_and_files(home: Home, tmp_path: Path) -> None:
    (home.folder / "ids.txt").write_text(f"{ERASED}\nreport-0004\n")
    pause, erase, resume = blocks("erasing", "Items")
    home.shell.run(pause)
    assert "deleted 2 items" in home.shell.run(erase, answer="y\n")
    home.shell.run(*blocks("erasing", "Annotators"), answer="y\n")
    home.shell.run(resume)
    again = home.shell.run(*blocks("erasing", "Backups"))
    assert "deleted 0 items" in again
    assert (tmp_path / "backups" / "erased-reports@1.txt").read_text() == f"{ERASED}\nreport-0004\n"

    (verify,) = blocks("erasing", "To verify")
    why, export = verify.splitlines()
    with pytest.raises(AssertionError, match=f"no such item: '{ERASED}'"):
        home.shell.run(why)
    home.shell.run(export)
    exported = (home.folder / "labels.csv").read_text()
    assert exported.count("erased:") == 2 + len(exported.splitlines()) - 1, "two ids, and each annotator"
    assert ERASED not in exported
    assert len(home.desk.run_round()) == 10


def test_pools_are_moved_to_another_index_server(home: Home, tmp_path: Path) -> None:
    new = Home(tmp_path / "new", tmp_path / "backups", tmp_path / "secrets")
    pause, move, resume = blocks("backup-and-restore", "Moving pools to another index server")
    known = home.desk.known()
    home.shell.run(pause)
    try:
        new.index.start()
        home.shell.run(move.replace("NEW:7301", new.index.address))
        home.learner.stop()
        home.scheduler.stop()
        home.call(new.index.address)
        home.learner.start()
        home.scheduler.start()
        home.shell.run(resume)
        home.index.stop()
        moved = Desk(new.index.address, home.scheduler.address, home.options)
        assert moved.known() == known
        assert len(moved.run_round()) == 10
        with moved.index() as index:
            assert list(index.get_pool(ALIAS).campaigns) == [CAMPAIGN]
    finally:
        new.kill()
