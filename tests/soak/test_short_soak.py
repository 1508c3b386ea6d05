"""A soak as short as a test may be. SEALPOOL_SOAK_SECONDS makes it longer; `make soak` takes 30 minutes."""

import os

from tests.soak.memory import MEBIBYTE, Sample, trend
from tests.soak.run import soak

SECONDS = float(os.environ.get("SEALPOOL_SOAK_SECONDS", "20"))


def test_mixed_load_leaves_what_its_clients_wrote_and_memory_stays(tmp_path):
    outcome = soak(tmp_path, seconds=SECONDS, clients=2, seed=1)
    assert outcome.faults == [], outcome.table()
    assert len(outcome.seconds) == 10
    assert len(outcome.seconds["expand"]) > SECONDS / 4


def test_memory_or_files_that_grow_are_found_out():
    steady = [Sample(float(at), 300 * MEBIBYTE + at % 7, 40) for at in range(100)]
    leaking = [Sample(float(at), (300 + 2 * at) * MEBIBYTE, 40 + 2 * at) for at in range(100)]
    assert trend(steady).faults() == []
    assert len(trend(leaking).faults()) == 2
