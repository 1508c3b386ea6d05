"""Pools opened in this process, for tests below the transport."""

import structlog

from index_server.candidates.book import Labels
from index_server.candidates.policies import resolve
from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.merging import MergeLimits
from index_server.pool import Pool, UpkeepSettings

LIMITS = Limits(**dict.fromkeys(Limits.__dataclass_fields__, 10_000))


class NoObserver:
    """A MergeObserver that looks away."""

    def searched(self, requests, queries):
        """Do nothing."""

    def waited(self, seconds):
        """Do nothing."""


class NoWatermarks:
    """Watermarks never reached."""

    def check_write(self):
        """Let every write pass."""


def index_settings(*, flat_items=1000, max_removed_share=0.5, measurable_items=0):
    return IndexSettings(
        rules=EngineRules(flat_items=flat_items, gpus=0, measurable_items=measurable_items),
        threads=1,
        seed=0,
        max_removed_share=max_removed_share,
        merging=MergeLimits(max_queries=1024, max_waiting=10_000),
        observer=NoObserver(),
    )


def open_pool(directory, spec, *, limits=LIMITS, settings=None, **watching):
    """Return the pool in `directory`. Its upkeep runs when the test runs it: `pool.upkeep.run()`."""
    return Pool.load(
        directory,
        spec,
        settings=settings or index_settings(),
        upkeep=UpkeepSettings(quiet_s=0.0, patience_s=0.0, compaction_bytes=1 << 30),
        limits=limits,
        watermarks=NoWatermarks(),
        log=structlog.wrap_logger(structlog.ReturnLogger()),
        **watching,
    )


def expand(pool, campaign, labelled, *, expand_from=None, classes=(), held=0, preview=False, k=5, name="", **options):
    """Expand a campaign as a servicer would, payloads and all."""
    policy, resolved = resolve(name, k=k if name in ("", "seals", "anchoral") else 0, **options)
    told = Labels(ids=labelled, expand_from=labelled if expand_from is None else expand_from, classes=classes)
    common = {"policy": policy, "options": resolved, "labels": told, "vectors": True, "payloads": True}
    if preview:
        return pool.preview(campaign, **common)
    return pool.expand(campaign, held_version=held, **common)
