"""Settings of the index server."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from index_server.engines.build import GpuLayout
from index_server.engines.milvus_server import MilvusIndex
from sealpool.runtime.settings import ServiceSettings


class IndexServerSettings(ServiceSettings):
    """The index server: pools of embeddings, nearest neighbours, candidate pools."""

    model_config = SettingsConfigDict(env_prefix="SEALPOOL_INDEX_SERVER_")

    listen: str = Field("127.0.0.1:7301", description=ServiceSettings.model_fields["listen"].description)
    metrics_listen: str = Field(
        "127.0.0.1:7311", description=ServiceSettings.model_fields["metrics_listen"].description
    )
    data_dir: Path = Field(
        Path(".sealpool/index_server"), description=ServiceSettings.model_fields["data_dir"].description
    )

    search_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that FAISS uses in one search; 0 means one for each core. Fewer leave more for calls side "
        "by side: lower it for many small searches at once, keep it for few large ones.",
    )
    parallel_searches: int = Field(
        2,
        ge=1,
        le=64,
        description="Searches of one pool at once; those that find all places taken wait, and are merged. With one, a "
        "small search waits for the end of a large one; with more, searches share the cores and each takes longer.",
    )
    merge_max_queries: int = Field(
        1024,
        ge=1,
        description="Queries of waiting searches that go to the index in one call. Higher: more throughput under load; "
        "each then waits for the whole call.",
    )
    merge_max_wait_s: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How long a search that had to wait for its turn waits for more to join it. 0 suits a CPU; on a "
        "GPU, which answers a thousand queries in hardly more time than one, a millisecond or two wins throughput.",
    )
    merge_max_waiting: int = Field(
        65_536,
        ge=1,
        description="Queries that may wait for one pool's index; a search beyond is refused at once. Higher: longer "
        "waits instead of refusals.",
    )
    loading_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Pools read from disk at once at start. More shorten the start where there are many pools and "
        "cores; each takes a core and reads as fast as it can.",
    )
    flat_items: int = Field(
        50_000,
        ge=0,
        description="Engine auto on CPU compares with every item up to so many items, and is exact; above, it looks "
        "into clusters (ivf_flat). Higher: exact for longer, slower in proportion to the pool.",
    )
    measurable_items: int = Field(
        1000,
        ge=0,
        description="Items below which a pool stays exact, whatever engine it asks for: recall is measured on 100 "
        "items with 100 neighbours each, and of fewer it would say nothing. Lower it for trying out.",
    )
    max_removed_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of deleted and replaced items in an index above which it is rebuilt without them. Lower "
        "saves memory and search time, higher saves rebuilding, which goes on in the background.",
    )
    rebuild_quiet_s: float = Field(
        2.0,
        ge=0,
        description="Seconds without an upload after which uploads count as ended, and a rebuild that is due begins.",
    )
    rebuild_patience_s: float = Field(
        60.0,
        ge=0,
        description="How long a rebuild of the index (training, say) is put off while uploads are under way, so that "
        "it need not be done again when they end. Searches are exact, and slower, until it is done.",
    )
    compaction_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="About how much one step of compacting the store rewrites. Smaller: steps that disturb others "
        "less, and are lost less often when items that they rewrite change meanwhile.",
    )
    training_seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed of training (ivf_flat). Another gives another, equally good clustering.",
    )
    disk_throttle_share: float = Field(
        0.90,
        gt=0,
        le=1,
        description="Share of the disk in use from which on writes are refused for a second: so clients slow down.",
    )
    disk_refuse_share: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the disk in use from which on writes are refused, to be tried again in 15 seconds. "
        "Searches go on. What is left is for commits under way, compaction and campaigns.",
    )
    memory_limit_bytes: int = Field(
        0,
        ge=0,
        description="Memory that this process may take; 0 means the limit of its control group, or none. From "
        "memory_throttle_share of it on writes are refused as with the disk.",
    )
    memory_throttle_share: float = Field(
        0.90, gt=0, le=1, description="As disk_throttle_share, of memory_limit_bytes. Rebuilding needs room beside it."
    )
    memory_refuse_share: float = Field(0.97, gt=0, le=1, description="As disk_refuse_share, of memory_limit_bytes.")
    snapshot_roots: tuple[str, ...] = Field(
        (),
        description="Directories and object store URLs (s3://bucket/path) below which snapshots may be written and "
        "read, as JSON list. Empty: data_dir/snapshots. Callers with the role admin choose the place, so name no more "
        "than is meant for it.",
    )
    source_roots: tuple[str, ...] = Field(
        (),
        description="Directories and object store URLs below which Lance data sets of other systems may be opened as "
        "pools, as JSON list. Empty: none.",
    )
    gpu_layout: GpuLayout = Field(
        GpuLayout.REPLICAS,
        description="How an index lies on several GPUs: replicas (each has all items and takes a part of the queries: "
        "throughput) or shards (each has a part of the items: memory).",
    )
    milvus_uri: str = Field(
        "",
        description="The Milvus in which pools with engine milvus have their index: http://host:port or "
        "https://host:port, with /database where it is not the default one. Empty: there is none, and the engine "
        "cannot be chosen.",
    )
    milvus_token_file: Path | None = Field(
        None,
        description="File with what Milvus asks for, one line: user:password, or an API key. It travels in clear "
        "unless milvus_uri begins with https.",
    )
    milvus_prefix: str = Field(
        "sealpool",
        pattern="^[A-Za-z][A-Za-z0-9]{0,31}$",
        description="What the names of this server's collections begin with. They also have an identity that is kept "
        "in data_dir, and collections with both that are not in use are dropped: give a copy of data_dir that runs "
        "beside its original another prefix.",
    )
    milvus_index: MilvusIndex = Field(
        MilvusIndex.HNSW,
        description="How Milvus indexes: HNSW (takes the hnsw options of a pool), FLAT (compares with every item), or "
        "AUTOINDEX (Milvus chooses).",
    )
    milvus_timeout_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="How long Milvus may take for a search, and a sixth of what it may take for an insertion. One that "
        "hangs holds up searches and uploads of its pools for so long; one that is gone is seen at once.",
    )
    max_pools: int = Field(
        100, ge=1, description="Pools there may be. Each keeps its vectors in memory; set it by the memory there is."
    )
    max_upsert_rows: int = Field(
        2_000_000,
        ge=1,
        description="Items in one Upsert stream. Their ids wait in memory until the stream ends; a stream is all or "
        "nothing, so larger ones also lose more when they fail.",
    )
    max_ids: int = Field(
        100_000,
        ge=1,
        description="Ids in one request. A client cuts longer lists; higher saves calls, and holds locks for longer.",
    )
    max_k: int = Field(
        10_000,
        ge=1,
        le=16_384,
        description="Neighbours a query may ask for. Cost grows with it; on a GPU beyond 2,048 the CPU does it.",
    )
    max_queries: int = Field(
        4096,
        ge=1,
        description="Queries in one Search. Higher saves calls; one call then occupies the index for longer.",
    )
    max_neighbors: int = Field(
        500_000,
        ge=1,
        description="Neighbours in one Search answer (queries × k), which is one message: keep it below what clients "
        "accept, at about 20 bytes and the id for each.",
    )
    max_sample: int = Field(
        1_000_000, ge=1, description="Items drawn by one SampleItems; the answer is one message of their ids."
    )
    max_candidates: int = Field(
        5_000_000,
        ge=1,
        description="Candidates a campaign may have. A growth beyond it is refused whole. Each takes about 60 bytes "
        "here, and its vector in the learner; set it by the learner's memory.",
    )
    max_campaigns: int = Field(
        1000, ge=1, description="Candidate pools one pool may have. Each is in memory; drop those of ended campaigns."
    )
