"""Settings of the index server."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

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
    max_removed_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of deleted and replaced items in an index above which it is rebuilt without them. Lower "
        "saves memory and search time, higher saves rebuilding, which happens within the call that passed the share.",
    )
    training_seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Seed of training (ivf_flat). Another gives another, equally good clustering.",
    )
    max_pools: int = Field(
        100, ge=1, description="Pools there may be. Each keeps its vectors in memory; set it by the memory there is."
    )
    max_upsert_rows: int = Field(
        2_000_000,
        ge=1,
        description="Items in one Upsert stream. Their vectors wait in memory until the stream ends; a stream is all "
        "or nothing, so larger ones also lose more when they fail.",
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
        description="Candidates a campaign may have. A growth beyond it is refused whole. Each takes about 200 bytes "
        "here, and its vector in the learner; set it by the learner's memory.",
    )
    max_campaigns: int = Field(
        1000, ge=1, description="Candidate pools one pool may have. Each is in memory; drop those of ended campaigns."
    )
