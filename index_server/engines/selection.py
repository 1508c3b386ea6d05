"""Which engine a pool gets, and why."""

from dataclasses import dataclass
from typing import Final

from index_server.engines import ENGINES, EngineKind, GpuLayout
from index_server.spec import ENGINE_AUTO, Device, PoolSpec, VectorType
from sealpool.errors import FailedPrecondition, InvalidArgument

RETRAIN_GROWTH = 4
"""A trained engine whose clusters are not fixed by the pool's options is trained anew when its pool grew so much."""
_OVERHEAD: Final = 1.2
"""Memory of a flat index over that of its vectors: growing, and the scores of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An engine, where it lies, and why, in words."""

    kind: EngineKind
    device: Device
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRules:
    """What the choice depends on beside the pool.

    Parameters
    ----------
    flat_items
        `auto` on CPU is exact up to so many items.
    gpus
        GPUs that FAISS can use.
    gpu_memory_bytes
        Memory of each that one pool may take; 0 where it is not known, and not looked at.
    gpu_layout
        How an index lies on more than one.
    host_memory_bytes
        Memory of the host that one pool's vectors may take; 0 where it is not looked at.
    cuvs
        Whether FAISS was built with cuVS.
    milvus
        Whether there is a Milvus.
    measurable_items
        Items without which recall would say nothing: no approximate engine is used below.
    """

    flat_items: int
    gpus: int
    gpu_memory_bytes: int = 0
    gpu_layout: GpuLayout = GpuLayout.REPLICAS
    host_memory_bytes: int = 0
    cuvs: bool = False
    milvus: bool = False
    measurable_items: int = 0


def check_engine(spec: PoolSpec, rules: EngineRules) -> None:
    """Raise InvalidArgument if the spec names an engine, device or options that cannot be had here.

    FailedPrecondition, if only a setting is missing.
    """
    if spec.engine != ENGINE_AUTO and spec.engine not in ENGINES:
        known = ", ".join([ENGINE_AUTO, *ENGINES])
        raise InvalidArgument("spec.engine", f"{spec.engine!r} is not one of {known}")
    if spec.device is Device.CUDA and not rules.gpus:
        raise InvalidArgument("spec.device", "cuda: FAISS finds no GPU here")
    if spec.engine == ENGINE_AUTO:
        return
    kind = ENGINES[spec.engine]
    if spec.device is Device.CUDA and not kind.cuda:
        raise InvalidArgument("spec.device", f"{spec.engine} has no form on a GPU")
    if not kind.cpu and (spec.device is Device.CPU or not rules.gpus):
        raise InvalidArgument("spec.engine", f"{spec.engine} lies on a GPU only; device {spec.device} has none here")
    if kind.cuvs and not rules.cuvs:
        raise InvalidArgument("spec.engine", f"{spec.engine} needs FAISS with cuVS: install sealpool[index-cuvs]")
    if kind.milvus and not rules.milvus:
        raise FailedPrecondition(f"engine {spec.engine} needs the setting milvus_uri", field="spec.engine")
    kind.check(spec.dimension, spec.options, _device(spec, kind, rules))


def choose(spec: PoolSpec, *, items: int, trained_on: int, rules: EngineRules) -> Choice:
    """Choose the engine for a pool of `items`, of which an engine was trained on `trained_on` before (0: none was).

    The choice depends on nothing else, so that a restart makes the same one.
    """
    if spec.engine == ENGINE_AUTO:
        return _choose_auto(spec, items, trained_on, rules)
    return _unless_untrained(ENGINES[spec.engine], "as the pool asks", spec, items, trained_on, rules)


def wants_training(choice: Choice, spec: PoolSpec, *, items: int, trained_on: int) -> bool:
    """Whether the chosen engine has to be trained, or trained again."""
    if not choice.kind.items_to_train(items, spec.options):
        return False
    return not trained_on or (not spec.options.ivf_lists and items >= RETRAIN_GROWTH * trained_on)


def _choose_auto(spec: PoolSpec, items: int, trained_on: int, rules: EngineRules) -> Choice:
    if _device(spec, ENGINES["flat"], rules) is Device.CUDA:
        return _choose_on_gpu(spec, items, trained_on, rules)
    limit = rules.flat_items
    # Once trained it stays down to half the limit, lest a pool at the limit be rebuilt with each change.
    if items <= (limit // 2 if trained_on else limit):
        return Choice(kind=ENGINES["flat"], device=Device.CPU, reason=f"auto: exact on CPU up to {limit:,} items")
    needed, room = _flat_bytes(spec, items, spec.vector_type), rules.host_memory_bytes
    if room and needed > _within(room, trained_on):
        reason = f"auto: vectors of {items:,} items need {_gib(needed)}, and {_gib(room)} are there: codes in memory"
        return _unless_untrained(ENGINES["ivf_pq"], reason, spec, items, trained_on, rules)
    reason = f"auto: above {limit:,} items on CPU; builds faster than hnsw at the same recall"
    return _unless_untrained(ENGINES["ivf_flat"], reason, spec, items, trained_on, rules)


def _choose_on_gpu(spec: PoolSpec, items: int, trained_on: int, rules: EngineRules) -> Choice:
    flat, room = ENGINES["flat"], rules.gpu_memory_bytes
    if not room:
        return Choice(kind=flat, device=Device.CUDA, reason="auto: exact search on the GPU")
    if rules.gpu_layout is GpuLayout.SHARDS:
        room *= rules.gpus
    needed = _flat_bytes(spec, items, spec.vector_type)
    numbers = f"{items:,} × {spec.dimension:,} {spec.vector_type} need {_gib(needed)} of {_gib(room)}"
    if needed <= _within(room, trained_on):
        return Choice(kind=flat, device=Device.CUDA, reason=f"auto: exact search on the GPU; {numbers}")
    halved = _flat_bytes(spec, items, VectorType.FLOAT16)
    hint = f"; as float16 they would fit, in {_gib(halved)}" if halved <= room < needed else ""
    return _unless_untrained(
        ENGINES["ivf_pq"], f"auto: codes on the GPU; {numbers}{hint}", spec, items, trained_on, rules
    )


def _unless_untrained(
    kind: EngineKind, reason: str, spec: PoolSpec, items: int, trained_on: int, rules: EngineRules
) -> Choice:
    device, needed = _device(spec, kind, rules), kind.items_to_train(items, spec.options)
    if not kind.exact:
        needed = max(needed, rules.measurable_items)
    if needed and items < needed and not trained_on:
        reason = f"{kind.name} needs {needed:,} items to be built of; exact until then"
        return Choice(kind=ENGINES["flat"], device=device, reason=reason)
    return Choice(kind=kind, device=device, reason=reason)


def _within(room: int, trained_on: int) -> float:
    return room / 2 if trained_on else room


def _flat_bytes(spec: PoolSpec, items: int, vector_type: VectorType) -> float:
    return items * spec.dimension * vector_type.dtype.itemsize * _OVERHEAD


def _gib(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"


def _device(spec: PoolSpec, kind: EngineKind, rules: EngineRules) -> Device:
    if spec.device is Device.AUTO:
        return Device.CUDA if rules.gpus and kind.cuda else Device.CPU
    return spec.device
