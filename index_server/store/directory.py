"""The directory of all pools: made, found and deleted in one step each, whatever happens in between.

<data_dir>/pools/<name>/pool.json        what the pool is, written once
                        items.lance/     its items
                        HEAD             the version of the items that counts
                        candidates.sqlite
                        engine.state     what training found
<data_dir>/pools/.new-…  .trash-…        begun and not ended: removed at start
"""

import fcntl
import json
import shutil
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

from index_server.spec import PoolSpec
from sealpool.durable import full_disk_is_exhaustion, make_directory, sync_directory, write_durably
from sealpool.errors import FailedPrecondition
from sealpool.failpoint import reach

_NEW, _TRASH = ".new-", ".trash-"
SCRATCH = ".scratch-"
"""How directories in a pool's own begin that a crash may leave behind."""


class PoolDirectory:
    """Names and places of pools below `data_dir`, of which one process at a time is the owner.

    Raises
    ------
    FailedPrecondition
        Another process owns it.
    """

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "pools"
        make_directory(self.root)
        self._lock_file = _lock(data_dir / "lock")
        for path in self.root.iterdir():
            if path.name.startswith((_NEW, _TRASH)):
                shutil.rmtree(path)
        for path in self.root.glob(f"*/{SCRATCH}*"):
            shutil.rmtree(path)

    def close(self) -> None:
        """Let another process own it."""
        self._lock_file.close()

    def names(self) -> list[str]:
        """Return the names of all pools, sorted."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def path(self, name: str) -> Path:
        """Return the directory of a pool."""
        return self.root / name

    def create(self, spec: PoolSpec, created_at: datetime, fill: Callable[[Path], object]) -> None:
        """Make a pool. `fill` puts, synced, into a directory what a pool has beside pool.json."""
        temporary = self.root / f"{_NEW}{uuid.uuid4().hex}"
        made = False
        try:
            with full_disk_is_exhaustion("a new pool", self.root):
                temporary.mkdir()
                fill(temporary)
                about = {"format": 1, "created_at": created_at.isoformat(), "spec": spec.to_json()}
                write_durably(temporary / "pool.json", json.dumps(about, indent=2).encode())
                reach("index.create.before_rename")
                temporary.rename(self.path(spec.name))
                reach("index.create.after_rename")
                sync_directory(self.root)
            made = True
        finally:
            if not made:
                shutil.rmtree(temporary, ignore_errors=True)

    def read(self, name: str) -> tuple[PoolSpec, datetime]:
        """Return what a pool is, and when it was made.

        Raises
        ------
        FailedPrecondition
            pool.json cannot be read.
        """
        try:
            about = json.loads((self.path(name) / "pool.json").read_bytes())
            return PoolSpec.from_json(about["spec"]), datetime.fromisoformat(about["created_at"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FailedPrecondition(f"pool.json cannot be read: {error}") from error

    def delete(self, name: str) -> None:
        """Delete a pool. It is gone, durably, before its files are; what cannot be removed now is at the next start."""
        trash = self.root / f"{_TRASH}{uuid.uuid4().hex}"
        reach("index.delete.before_rename")
        self.path(name).rename(trash)
        reach("index.delete.after_rename")
        sync_directory(self.root)
        shutil.rmtree(trash, ignore_errors=True)


def _lock(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise FailedPrecondition(f"{path} is locked: another index server owns this data_dir") from error
    return file
