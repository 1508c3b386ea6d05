"""The learner's settings."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from learner.device import DeviceChoice
from sealpool.runtime.settings import MEBIBYTE, CallingServiceSettings

_GIBIBYTE = 1 << 30


class LearnerSettings(CallingServiceSettings):
    """What the learner can be told."""

    model_config = SettingsConfigDict(env_prefix="SEALPOOL_LEARNER_")

    listen: str = Field("127.0.0.1:7302", description=CallingServiceSettings.model_fields["listen"].description)
    metrics_listen: str = Field(
        "127.0.0.1:7312", description=CallingServiceSettings.model_fields["metrics_listen"].description
    )
    data_dir: Path = Field(
        Path(".sealpool/learner"),
        description="Checkpoints and re-embedding jobs; several learners may share it. On a disk that honours fsync.",
    )
    index_server: str = Field("127.0.0.1:7301", description="host:port of the index server.")
    device: DeviceChoice = Field(
        "auto",
        description="Where models are trained and candidates scored: cpu, cuda, or auto (a GPU where torch finds one). "
        "Picks are repeatable on one kind of device, and may differ between kinds.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of torch; 0 takes all cores. Set it where the learner shares the machine.",
    )
    batch_rows: int = Field(
        16_384,
        ge=1,
        le=1 << 22,
        description="Candidates scored at once. More keeps a GPU busier; each takes 4 bytes a class, some times over.",
    )
    max_batch: int = Field(
        10_000, ge=1, le=1 << 20, description="Items that one Select may pick; the index server's max_sample bounds it."
    )
    max_examples: int = Field(
        1_000_000,
        ge=1,
        le=1 << 26,
        description="Labelled, excluded or held-out ids in one call. Their vectors are in memory while a model is "
        "trained or measured.",
    )
    max_predict_ids: int = Field(
        1_000_000, ge=1, le=1 << 26, description="Ids in one Predict. For more, predict the whole pool."
    )
    told_per_call: int = Field(
        10_000,
        ge=1,
        le=1 << 20,
        description="Labelled ids told to the index server in one call; keep it under its max_ids. Matters after a "
        "restart, when all are told again.",
    )
    max_trainings: int = Field(
        1,
        ge=1,
        le=256,
        description="Models trained at once. One already uses all threads or the whole GPU; more share them.",
    )
    training_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory of the device that trainings which run at once may take together, as estimated before each "
        "begins; more of them wait. A training that alone needs more runs alone. 0: three quarters of the device's; "
        "on a CPU, of what the machine has and the control group may take.",
    )
    max_waiting_trainings: int = Field(
        32,
        ge=0,
        le=4096,
        description="Trainings that may wait for their turn; one more is refused with RESOURCE_EXHAUSTED. Each holds "
        "a call and its examples.",
    )
    propagation_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory that one Propagate may take, as estimated from the pool's items, k and the classes before "
        "it begins; a larger graph is refused with RESOURCE_EXHAUSTED. 0: half of the device's, "
        "counted as with training_memory_bytes.",
    )
    vector_cache_bytes: int = Field(
        512 * MEBIBYTE,
        ge=0,
        description="Memory for vectors of labelled and held-out items, so that a round reads only what is new. Room "
        "for all of them is best; 0 reads them anew each time.",
    )
    candidate_cache_bytes: int = Field(
        4 * _GIBIBYTE,
        ge=0,
        description="Memory for the candidates of all campaigns. Past the limit the campaigns not in use are dropped, "
        "and read from the index server again in their next round; where one campaign's vectors alone pass it, they "
        "are read each time that they are scored.",
    )
    idle_campaign_s: float = Field(
        3_600,
        gt=0,
        description="Seconds after which the candidates of a campaign that is not used are let go. Its next round "
        "reads them from the index server again.",
    )
    device_candidate_bytes: int = Field(
        4 * _GIBIBYTE,
        ge=0,
        description="GPU memory for one campaign's candidates. Larger ones travel to the GPU each time they are "
        "scored, at the speed of the bus. No meaning on a CPU.",
    )
    keep_checkpoints: int = Field(
        20,
        ge=2,  # a warm round goes on from the one before
        le=1_000_000,
        description="Rounds of a campaign whose checkpoints are kept. More lets older rounds be measured again, at a "
        "model's size each.",
    )
    keep_models: int = Field(
        2,
        ge=1,
        le=1024,
        description="Checkpoints that stay loaded, over all campaigns. A round asks for its own three times: room for "
        "one of each campaign that is active at once saves reading it again.",
    )
    progress_interval_s: float = Field(
        0.5, ge=0, le=3600, description="Least seconds between two progress messages of a training."
    )
    allow_download: bool = Field(
        False,
        description="Fetch encoders that are not on this machine from the Hugging Face hub. Off, the service never "
        "reaches out by itself.",
    )
    keep_encoders: int = Field(
        2, ge=1, le=64, description="Encoders kept loaded. Raise it where calls alternate between more."
    )
    compile_encoders: bool = Field(
        False,
        description="Compile encoders for the GPU: more texts a second, after a minute at the first of each shape. No "
        "meaning on a CPU.",
    )
    max_waiting_reembeddings: int = Field(
        8,
        ge=0,
        le=1024,
        description="Re-embedding jobs that may wait for the one that runs, over all learners that share data_dir.",
    )
    embed_batch_tokens: int = Field(
        16_384,
        ge=1,
        le=1 << 24,
        description="Tokens, padding included, that go through an encoder at once. Raise it on a large GPU, lower it "
        "when memory runs out.",
    )
    embed_window_texts: int = Field(
        2_048,
        ge=1,
        le=1 << 20,
        description="Texts gathered and sorted by length before they are embedded. More means less padding, more "
        "memory, and a longer wait for the first vectors.",
    )
    max_text_bytes: int = Field(
        MEBIBYTE, ge=1, le=512 * MEBIBYTE, description="Longest text that is embedded, before it is cut into tokens."
    )
