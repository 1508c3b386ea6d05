from pathlib import Path

import pytest

from index_server.store.watermarks import Watermarks, memory_limit, resident_bytes, used_disk_share
from sealpool.errors import ResourceExhausted


class Machine:
    def __init__(self):
        self.now, self.disk, self.memory, self.looks = 0.0, 0.0, 0, 0

    def disk_share(self, directory):
        self.looks += 1
        return self.disk

    def watermarks(self, memory_limit_bytes=1000):
        return Watermarks(
            Path("/"),
            disk_throttle_share=0.8,
            disk_refuse_share=0.9,
            memory_limit_bytes=memory_limit_bytes,
            memory_throttle_share=0.7,
            memory_refuse_share=0.95,
            disk_share=self.disk_share,
            memory_bytes=lambda: self.memory,
            clock=lambda: self.now,
        )


@pytest.fixture
def machine():
    return Machine()


def test_a_write_passes_below_both_marks(machine):
    machine.disk, machine.memory = 0.79, 699
    machine.watermarks().check_write()


@pytest.mark.parametrize(
    ("disk", "memory", "setting"),
    [(0.8, 0, "disk_throttle_share"), (0.0, 700, "memory_throttle_share")],
)
def test_between_the_marks_a_write_is_told_to_come_again_soon(machine, disk, memory, setting):
    machine.disk, machine.memory = disk, memory
    with pytest.raises(ResourceExhausted) as caught:
        machine.watermarks().check_write()
    assert (caught.value.setting, caught.value.retry_after_s) == (setting, 1.0)


@pytest.mark.parametrize(
    ("disk", "memory", "setting"),
    [(0.9, 0, "disk_refuse_share"), (0.0, 950, "memory_refuse_share")],
)
def test_above_the_second_mark_a_write_is_told_to_come_again_much_later(machine, disk, memory, setting):
    machine.disk, machine.memory = disk, memory
    with pytest.raises(ResourceExhausted) as caught:
        machine.watermarks().check_write()
    assert (caught.value.setting, caught.value.retry_after_s) == (setting, 15.0)


def test_memory_is_not_looked_at_without_a_limit(machine):
    machine.memory = 10**15
    machine.watermarks(memory_limit_bytes=0).check_write()


def test_a_look_at_the_disk_is_good_for_a_moment(machine):
    watermarks = machine.watermarks()
    watermarks.check_write()
    machine.disk = 0.95
    watermarks.check_write()
    assert machine.looks == 1
    machine.now = 0.2
    with pytest.raises(ResourceExhausted):
        watermarks.check_write()


def test_the_machine_can_be_read(tmp_path):
    assert 0 <= used_disk_share(tmp_path) <= 1
    assert resident_bytes() > 1 << 20
    assert memory_limit(1) == 1
