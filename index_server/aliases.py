"""Names that stand for pools."""

import json
from pathlib import Path

from sealpool.durable import full_disk_is_exhaustion, write_durably
from sealpool.errors import FailedPrecondition


class Aliases:
    """Which alias stands for which pool, on disk before it is so.

    Threads: one at a time.

    Raises
    ------
    FailedPrecondition
        The file is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pools: dict[str, str] = {}
        if path.exists():
            try:
                self._pools = {str(alias): str(pool) for alias, pool in json.loads(path.read_bytes()).items()}
            except (OSError, ValueError, AttributeError) as error:
                raise FailedPrecondition(f"{path} cannot be read: {error}") from error

    def pool_of(self, alias: str) -> str:
        """Return the pool that `alias` stands for, "" where it is none."""
        return self._pools.get(alias, "")

    def of(self, pool: str) -> list[str]:
        """Return the aliases of a pool, by name."""
        return sorted(alias for alias, target in self._pools.items() if target == pool)

    def set(self, alias: str, pool: str) -> str:
        """Let `alias` stand for `pool`; return the pool that it stood for, "" for none."""
        before = self.pool_of(alias)
        self._write({**self._pools, alias: pool})
        return before

    def delete(self, alias: str) -> None:
        """Forget `alias`, which is one."""
        self._write({name: pool for name, pool in self._pools.items() if name != alias})

    def _write(self, pools: dict[str, str]) -> None:
        with full_disk_is_exhaustion("the aliases", self._path.parent):
            write_durably(self._path, json.dumps(pools, indent=2, sort_keys=True).encode())
        self._pools = pools
