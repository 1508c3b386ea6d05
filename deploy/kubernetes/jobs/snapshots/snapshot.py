"""Write a snapshot of every pool, and drop the oldest ones beyond those that are kept. Run by the CronJob beside it.

A run makes a folder named by its time, with a snapshot a pool and, last, aliases.json: so a folder without that was cut
off, and never counts as one that is kept. Pools that are read from another system's data set are left to that system.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import SealpoolError

ALIASES = "aliases.json"


def main(environment: Mapping[str, str], now: datetime) -> int:
    """Do both, and return the exit status: 1 where a pool could not be written, and then nothing is dropped."""
    root, stamp = Path(environment["SNAPSHOTS"]), now.strftime("%Y%m%dT%H%M%SZ")
    with IndexClient(environment["SEALPOOL_INDEX"], options=client_options(environment)) as index:
        failed = _write(index, root, stamp)
    if failed:
        return 1
    _drop(root, keep=int(environment["KEEP"]))
    return 0


def client_options(environment: Mapping[str, str]) -> ClientOptions:
    """Return how the index server is called."""
    return ClientOptions(
        retry_for_s=600.0,  # A pool that is being read from disk is waited for.
        timeout_s=600.0,
        long_timeout_s=6 * 3600.0,
        ca_certificate=_path(environment, "SEALPOOL_CA_CERTIFICATE"),
        client_certificate=_path(environment, "SEALPOOL_CLIENT_CERTIFICATE"),
        client_key=_path(environment, "SEALPOOL_CLIENT_KEY"),
        token=environment.get("SEALPOOL_TOKEN", ""),
        insecure=environment.get("SEALPOOL_INSECURE") == "true",
    )


def _write(index: IndexClient, root: Path, stamp: str) -> int:
    pools = [pool for pool in index.list_pools() if not pool.read_only]
    failed = 0
    for pool in pools:
        try:
            answer = index.create_snapshot(pool.spec.name, f"{root}/{stamp}/{pool.spec.name}")
            _say(pool=pool.spec.name, snapshot=stamp, items=answer.size, bytes=answer.bytes)
        except SealpoolError as error:
            failed += 1
            _say(pool=pool.spec.name, error=error.message)
    if not failed:
        aliases = {alias: pool.spec.name for pool in pools for alias in pool.aliases}
        (root / stamp).mkdir(exist_ok=True)
        (root / stamp / ALIASES).write_text(json.dumps(aliases, indent=2), encoding="utf-8")
    return failed


def _drop(root: Path, *, keep: int) -> None:
    runs = sorted(path.parent for path in root.glob(f"*/{ALIASES}"))
    kept = runs[-keep:]
    for folder in sorted(path for path in root.glob("*T*Z") if path < kept[0]):
        shutil.rmtree(folder)
        _say(dropped=folder.name)


def _path(environment: Mapping[str, str], variable: str) -> Path | None:
    return Path(environment[variable]) if environment.get(variable) else None


def _say(**fields: object) -> None:
    sys.stderr.write(json.dumps(fields) + "\n")


if __name__ == "__main__":
    sys.exit(main(os.environ, datetime.now(UTC)))
