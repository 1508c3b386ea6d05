"""Which engine a pool gets, and why."""

from dataclasses import dataclass

from index_server.engines import ENGINES, EngineKind
from index_server.spec import ENGINE_AUTO, Device, PoolSpec
from sealpool.errors import InvalidArgument

RETRAIN_GROWTH = 4
"""A trained engine whose clusters are not fixed by the pool's options is trained anew when its pool grew so much."""


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
    """

    flat_items: int
    gpus: int


def check_engine(spec: PoolSpec, rules: EngineRules) -> None:
    """Raise InvalidArgument if the spec names an engine or device that cannot be had here."""
    if spec.engine != ENGINE_AUTO and spec.engine not in ENGINES:
        known = ", ".join([ENGINE_AUTO, *ENGINES])
        raise InvalidArgument("spec.engine", f"{spec.engine!r} is not one of {known}")
    if spec.device is Device.CUDA:
        if not rules.gpus:
            raise InvalidArgument("spec.device", "cuda: FAISS finds no GPU here")
        if spec.engine != ENGINE_AUTO and not ENGINES[spec.engine].cuda:
            raise InvalidArgument("spec.device", f"{spec.engine} has no form on a GPU")


def choose(spec: PoolSpec, *, items: int, trained_on: int, rules: EngineRules) -> Choice:
    """Choose the engine for a pool of `items`, of which an engine was trained on `trained_on` before (0: none was).

    The choice depends on nothing else, so that a restart makes the same one.
    """
    if spec.engine == ENGINE_AUTO:
        return _choose_auto(spec, items, trained_on, rules)
    kind = ENGINES[spec.engine]
    device = _device(spec, kind, rules)
    needed = kind.items_to_train(items, spec.options)
    if needed and items < needed and not trained_on:
        reason = f"{kind.name} needs {needed:,} items to be trained on; exact until then"
        return Choice(kind=ENGINES["flat"], device=device, reason=reason)
    return Choice(kind=kind, device=device, reason="as the pool asks")


def wants_training(choice: Choice, spec: PoolSpec, *, items: int, trained_on: int) -> bool:
    """Whether the chosen engine has to be trained, or trained again."""
    if not choice.kind.items_to_train(items, spec.options):
        return False
    return not trained_on or (not spec.options.ivf_lists and items >= RETRAIN_GROWTH * trained_on)


def _choose_auto(spec: PoolSpec, items: int, trained_on: int, rules: EngineRules) -> Choice:
    flat, approximate = ENGINES["flat"], ENGINES["ivf_flat"]
    device = _device(spec, flat, rules)
    if device is Device.CUDA:
        return Choice(kind=flat, device=device, reason="auto: exact search on the GPU")
    limit = rules.flat_items
    # Once trained it stays down to half the limit, lest a pool at the limit be rebuilt with each change.
    if items <= (limit // 2 if trained_on else limit):
        return Choice(kind=flat, device=device, reason=f"auto: exact on CPU up to {limit:,} items")
    needed = approximate.items_to_train(items, spec.options)
    if items < needed and not trained_on:
        return Choice(kind=flat, device=device, reason=f"auto: exact until {needed:,} items are there to train on")
    reason = f"auto: above {limit:,} items on CPU; builds faster than hnsw at the same recall"
    return Choice(kind=approximate, device=device, reason=reason)


def _device(spec: PoolSpec, kind: EngineKind, rules: EngineRules) -> Device:
    if spec.device is Device.AUTO:
        return Device.CUDA if rules.gpus and kind.cuda else Device.CPU
    return spec.device
