"""Which engine a pool gets, and what it is told."""

import pytest

from index_server.engines import GpuLayout
from index_server.engines.ivf_pq import subquantizers_for
from index_server.engines.selection import EngineRules, check_engine, choose, wants_training
from index_server.spec import Device, EngineOptions, PoolSpec, VectorType
from sealpool.errors import FailedPrecondition, InvalidArgument

GIB = 2**30
CPU = EngineRules(flat_items=50_000, gpus=0)
GPU = EngineRules(flat_items=50_000, gpus=2, gpu_memory_bytes=12 * GIB)


def spec_of(**fields):
    return PoolSpec(name="pool", **{"dimension": 256, **fields})


def chosen(rules, items, trained_on=0, **fields):
    choice = choose(spec_of(**fields), items=items, trained_on=trained_on, rules=rules)
    return choice.kind.name, choice.device, choice.reason


@pytest.mark.parametrize(
    ("items", "trained_on", "name"),
    [(50_000, 0, "flat"), (50_001, 0, "ivf_flat"), (30_000, 60_000, "ivf_flat"), (25_000, 60_000, "flat")],
)
def test_auto_on_cpu_is_exact_for_small_pools_and_does_not_waver(items, trained_on, name):
    engine, device, reason = chosen(CPU, items, trained_on)
    assert (engine, device) == (name, Device.CPU)
    assert "50,000 items" in reason


def test_auto_on_cpu_is_exact_until_there_is_enough_to_train_on():
    name, _, reason = chosen(EngineRules(flat_items=10, gpus=0), 1000)
    assert name == "flat"
    assert "ivf_flat needs 24,375 items" in reason


def test_auto_on_cpu_keeps_codes_where_vectors_do_not_fit_the_host():
    rules = EngineRules(flat_items=50_000, gpus=0, host_memory_bytes=4 * GIB)
    assert chosen(rules, 3_000_000)[0] == "ivf_flat"
    name, _, reason = chosen(rules, 4_000_000)
    assert name == "ivf_pq"
    assert "4,000,000 items need 4.6 GiB, and 4.0 GiB are there" in reason


def test_auto_on_a_gpu_is_exact_while_the_vectors_fit():
    name, device, reason = chosen(GPU, 10_000_000)
    assert (name, device) == ("flat", Device.CUDA)
    assert "10,000,000 × 256 float32 need 11.4 GiB of 12.0 GiB" in reason


def test_auto_on_a_gpu_keeps_codes_beyond_and_says_whether_float16_would_fit():
    name, device, reason = chosen(GPU, 15_000_000)
    assert (name, device) == ("ivf_pq", Device.CUDA)
    assert "as float16 they would fit, in 8.6 GiB" in reason
    assert chosen(GPU, 15_000_000, vector_type=VectorType.FLOAT16)[0] == "flat"
    assert "float16 they" not in chosen(GPU, 40_000_000)[2]


def test_shards_bring_the_memory_of_all_gpus_and_replicas_that_of_one():
    shards = EngineRules(flat_items=0, gpus=2, gpu_memory_bytes=12 * GIB, gpu_layout=GpuLayout.SHARDS)
    assert chosen(shards, 20_000_000)[0] == "flat"
    assert chosen(GPU, 20_000_000)[0] == "ivf_pq"


def test_auto_on_a_gpu_keeps_codes_down_to_half_of_what_fits_once_they_are_trained():
    assert chosen(GPU, 8_000_000)[0] == "flat"
    assert chosen(GPU, 8_000_000, trained_on=15_000_000)[0] == "ivf_pq"
    assert chosen(GPU, 5_000_000, trained_on=15_000_000)[0] == "flat"


def test_auto_on_a_gpu_of_unknown_memory_is_exact():
    assert chosen(EngineRules(flat_items=0, gpus=1), 10**9)[:2] == ("flat", Device.CUDA)


def test_a_pool_that_asks_for_the_cpu_stays_there():
    assert chosen(GPU, 100, device=Device.CPU)[:2] == ("flat", Device.CPU)
    assert chosen(GPU, 5000, trained_on=5000, engine="lsh")[:2] == ("lsh", Device.CPU)


@pytest.mark.parametrize(("engine", "needed"), [("ivf_pq", 24_375), ("lsh", 4_096), ("cagra", 1_024)])
def test_a_trained_engine_is_exact_until_it_can_be_trained(engine, needed):
    rules = EngineRules(flat_items=0, gpus=1, cuvs=True)
    name, _, reason = chosen(rules, needed - 1, engine=engine)
    assert name == "flat"
    assert f"{engine} needs {needed:,} items" in reason
    choice = choose(spec_of(engine=engine), items=needed, trained_on=0, rules=rules)
    assert choice.kind.name == engine
    assert wants_training(choice, spec_of(engine=engine), items=needed, trained_on=0)
    assert not wants_training(choice, spec_of(engine=engine), items=needed, trained_on=needed)


@pytest.mark.parametrize(
    ("fields", "rules", "field"),
    [
        ({"engine": "annoy"}, CPU, "spec.engine"),
        ({"device": Device.CUDA}, CPU, "spec.device"),
        ({"engine": "lsh", "device": Device.CUDA}, GPU, "spec.device"),
        ({"engine": "cagra"}, CPU, "spec.engine"),
        ({"engine": "cagra", "device": Device.CPU}, GPU, "spec.engine"),
        ({"engine": "cagra"}, GPU, "spec.engine"),
        ({"engine": "lsh", "dimension": 20_000}, CPU, "spec.engine"),
        ({"engine": "ivf_pq", "options": EngineOptions(pq_subquantizers=128)}, GPU, "spec.options.pq_subquantizers"),
        ({"engine": "ivf_pq", "options": EngineOptions(pq_subquantizers=100)}, CPU, "spec.options.pq_subquantizers"),
    ],
)
def test_what_cannot_be_had_here_is_refused_with_its_field(fields, rules, field):
    with pytest.raises(InvalidArgument) as refused:
        check_engine(spec_of(**fields), rules)
    assert refused.value.field == field


def test_milvus_is_refused_by_the_name_of_the_setting_where_there_is_none():
    with pytest.raises(FailedPrecondition, match="milvus_uri") as refused:
        check_engine(spec_of(engine="milvus"), CPU)
    assert refused.value.field == "spec.engine"
    check_engine(spec_of(engine="milvus"), EngineRules(flat_items=0, gpus=0, milvus=True))


def test_what_can_be_had_is_let_through():
    check_engine(spec_of(), CPU)
    for rules, parts in [(CPU, 128), (GPU, 64)]:
        check_engine(spec_of(engine="ivf_pq", options=EngineOptions(pq_subquantizers=parts)), rules)
    check_engine(spec_of(engine="cagra"), EngineRules(flat_items=0, gpus=1, cuvs=True))


@pytest.mark.parametrize(
    ("dimension", "on_cpu", "on_gpu"), [(256, 64, 64), (768, 192, 96), (17, 17, 1), (1, 1, 1), (6, 2, 1), (100, 25, 20)]
)
def test_a_vector_is_cut_into_about_a_quarter_of_its_dimensions(dimension, on_cpu, on_gpu):
    assert subquantizers_for(dimension, EngineOptions(), Device.CPU) == on_cpu
    assert subquantizers_for(dimension, EngineOptions(), Device.CUDA) == on_gpu
