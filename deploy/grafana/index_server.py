"""The board of the index server: pools, searches, candidate pools, memory and disk."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.calls import calls, processes
from deploy.grafana.layout import Section, arrange, choice
from deploy.grafana.panels import About, Limits, Query, lines, number
from deploy.grafana.queries import mean, of_candidates, of_instance, of_pool, or_zero, quantile

SERVICE = "index_server"
NO_POOL = "no pool yet"
NO_SEARCH = "no search yet"
POOL = 'pool=~"$pool"'


def board() -> Dashboard:
    """Return the board."""
    pools = 'label_values(sealpool_index_server_pool_items{namespace=~"$namespace", instance=~"$instance"}, pool)'
    of_pools = 'sealpool_index_server_candidate_pool_items{namespace=~"$namespace", pool=~"$pool"}'
    return arrange(
        "sealpool / Index server",
        "sealpool-index-server",
        "Pools and their indexes, searches, candidate pools, and what memory and disk are left.",
        variables=[
            choice("namespace", "label_values(sealpool_index_server_build_info, namespace)"),
            choice("instance", 'label_values(sealpool_index_server_build_info{namespace=~"$namespace"}, instance)'),
            choice("pool", pools),
            choice("campaign", f"label_values({of_pools}, campaign)"),
        ],
        sections=[_now(), calls(SERVICE), _searches(), _pools(), _candidate_pools(), _room(), processes(SERVICE)],
    )


def _now() -> Section:
    return Section(
        "Now",
        [
            number(
                About(
                    title="Pools",
                    width=5,
                    unit="short",
                    empty="0",
                    alert="IndexServerNotReady",
                    does="By state. A pool that is loading is read into memory after a start; one that failed says "
                    "why in `sealpool pool show`.",
                ),
                Query(f"max by (state) ({of_instance(SERVICE, 'pools')})", "{{state}}"),
            ),
            number(
                About(title="Items", width=4, unit="short", empty="0", does="Of the chosen pools."),
                Query(or_zero(f"sum({of_pool('pool_items')})")),
            ),
            number(
                About(
                    title="Lowest recall",
                    width=5,
                    unit="percentunit",
                    empty=NO_POOL,
                    alert="IndexRecallBelowFloor",
                    limits=Limits(warning=0.95, bad=0.9, falling=True),
                    does="Of the chosen pools: share of the true 100 neighbours that the index found on a sample "
                    "after it was built. An exact index has 100 %.",
                ),
                Query(f"min({of_pool('index_recall_ratio')})"),
            ),
            number(
                About(
                    title="Index memory",
                    width=5,
                    unit="bytes",
                    empty="0 B",
                    does="Of the chosen pools' indexes, host and device. A rebuild needs the same once more.",
                ),
                Query(or_zero(f"sum({of_pool('index_memory_bytes')})")),
            ),
            number(
                About(
                    title="Fullest disk",
                    width=5,
                    unit="percentunit",
                    empty="not told",
                    alert="IndexServerDiskFilling",
                    limits=Limits(warning=0.85, bad=0.94),
                    does="Of the disk of data_dir, the fullest of the chosen instances. Uploads are slowed down "
                    "from 90 % and refused from 95 %: enlarge it, or delete pools and snapshots.",
                ),
                Query(f"max({of_instance(SERVICE, 'disk_used_ratio')})"),
            ),
        ],
    )


def _searches() -> Section:
    return Section(
        "Searches",
        [
            lines(
                About(
                    title="Wait for the index",
                    unit="s",
                    empty=NO_SEARCH,
                    does="How long a search waits before an index takes it. Where it grows, raise parallel_searches "
                    "on many cores, or merge_max_wait_s on a GPU.",
                ),
                Query(quantile(0.5, SERVICE, "search_wait_seconds"), "half of them, at most"),
                Query(quantile(0.99, SERVICE, "search_wait_seconds"), "99 % of them, at most"),
            ),
            lines(
                About(
                    title="Searches merged into one",
                    unit="short",
                    empty=NO_SEARCH,
                    does="Mean. 1 says that searches seldom wait for each other; much more, that they queue and are "
                    "answered together.",
                ),
                Query(mean(SERVICE, "merged_searches"), "searches"),
            ),
            lines(
                About(
                    title="Queries in one search",
                    unit="short",
                    empty=NO_SEARCH,
                    does="Mean number of vectors that an index compares at once. A GPU wants hundreds; single ones "
                    "say that a caller should send batches.",
                ),
                Query(mean(SERVICE, "merged_queries"), "queries"),
            ),
        ],
    )


def _pools() -> Section:
    return Section(
        "Pools",
        [
            lines(
                About(
                    title="Items by pool", unit="short", empty=NO_POOL, does="Steps are uploads; a fall is a deletion."
                ),
                Query(of_pool("pool_items"), "{{pool}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Changes a minute",
                    unit="short",
                    empty=NO_POOL,
                    does="Of a pool's version: commits of uploads and deletions. Many small ones cost more than few "
                    "large ones: let clients send batches.",
                ),
                Query(f"60 * max by (pool) (deriv({of_instance(SERVICE, 'pool_version', also=POOL)}[5m]))", "{{pool}}"),
            ),
            lines(
                About(
                    title="Recall and its floor",
                    unit="percentunit",
                    empty=NO_POOL,
                    alert="IndexRecallBelowFloor",
                    does="Measured whenever an index was built. Below its floor an index is not used and the pool "
                    "is searched exactly, more slowly: give the engine more to look at, or lower the floor.",
                ),
                Query(of_pool("index_recall_ratio", by="pool, engine"), "{{pool}} {{engine}}"),
                Query(of_pool("index_recall_floor_ratio"), "{{pool}} floor"),
                steps=True,
                highest=1,
            ),
            lines(
                About(
                    title="Index memory by pool",
                    unit="bytes",
                    empty=NO_POOL,
                    does="Host and device. Half of it with dtype float16, a sixteenth with ivf_pq or lsh.",
                ),
                Query(of_pool("index_memory_bytes"), "{{pool}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Share of the neighbour graph that is known",
                    unit="percentunit",
                    empty=NO_POOL,
                    does="Items whose neighbours were found once. A round finds those of its labels; the more are "
                    "known, the less it searches.",
                ),
                Query(f"{of_pool('graph_items')} / {of_pool('pool_items')}", "{{pool}}"),
                steps=True,
                highest=1,
            ),
            lines(
                About(
                    title="GPU memory of vectors",
                    unit="bytes",
                    empty="no GPU",
                    alert="GpuMemoryHigh",
                    does="Used, and what the device has. Searches need some beside: keep a tenth free, or share the "
                    "pool over several devices (gpu_layout: shards).",
                ),
                Query(f"max by (device) ({of_instance(SERVICE, 'gpu_memory_bytes')})", "{{device}}"),
                Query(f"max by (device) ({of_instance(SERVICE, 'gpu_memory_total_bytes')})", "{{device}} has"),
            ),
        ],
    )


def _candidate_pools() -> Section:
    items = of_candidates("candidate_pool_items")
    return Section(
        "Candidate pools",
        [
            lines(
                About(
                    title="Candidates",
                    unit="short",
                    empty="no campaign yet",
                    does="By pool and campaign. Those of campaigns that have ended take memory until they are "
                    "dropped: archive the campaign.",
                ),
                Query(items, "{{pool}} {{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Candidates added a second",
                    unit="short",
                    empty="no campaign yet",
                    does="By campaign: peaks are rounds. Between them nothing should be added.",
                ),
                Query(
                    "sum by (campaign) (rate(sealpool_index_server_candidates_added_total"
                    '{namespace=~"$namespace", pool=~"$pool", campaign=~"$campaign"}[$__rate_interval]))',
                    "{{campaign}}",
                ),
            ),
            lines(
                About(
                    title="Of what a candidate pool may hold",
                    unit="percentunit",
                    empty="no campaign yet",
                    alert="CandidatePoolNearItsCap",
                    limits=Limits(warning=0.9, bad=1),
                    does="Candidates as a share of max_candidates, beyond which a growth is refused whole.",
                ),
                Query(f"{items} / {of_candidates('candidate_pool_limit_items')}", "{{pool}} {{campaign}}"),
                steps=True,
            ),
        ],
    )


def _room() -> Section:
    return Section(
        "Room",
        [
            lines(
                About(
                    title="Disk used",
                    unit="percentunit",
                    empty="not told",
                    width=12,
                    alert="IndexServerDiskFilling",
                    limits=Limits(warning=0.85, bad=0.94),
                    does="By instance. From 90 % uploads are slowed down, from 95 % refused; searches and rounds go "
                    "on.",
                ),
                Query(of_instance(SERVICE, "disk_used_ratio"), "{{instance}}"),
                highest=1,
            ),
            lines(
                About(
                    title="Memory used",
                    unit="percentunit",
                    empty="no memory limit is set",
                    width=12,
                    alert="IndexServerMemoryHigh",
                    limits=Limits(warning=0.88, bad=0.97),
                    does="Of the process's limit (memory_limit_bytes, or its container's). From 90 % uploads are "
                    "refused. A rebuild takes an index's memory twice for a while.",
                ),
                Query(of_instance(SERVICE, "memory_used_ratio"), "{{instance}}"),
                highest=1,
            ),
        ],
    )
