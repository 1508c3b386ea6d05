"""Cron expressions mean what they mean to cron."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.cron import check_cron, cron_trigger
from sealpool.errors import InvalidArgument

FRIDAY = datetime(2026, 1, 2, 12, 0, 30, tzinfo=UTC)


def firings(expression: str, count: int) -> list[str]:
    trigger, at, found = cron_trigger(expression), FRIDAY, []
    for _ in range(count):
        fired = trigger.get_next_fire_time(None, at)
        found.append(f"{fired:%a %d %H:%M}")
        at = fired + timedelta(seconds=1)
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/30 * * * *", ["Fri 02 12:30", "Fri 02 13:00"]),
        ("0 9 * * 0", ["Sun 04 09:00", "Sun 11 09:00"]),
        ("0 9 * * 7", ["Sun 04 09:00", "Sun 11 09:00"]),
        ("0 9 * * 1-5", ["Mon 05 09:00", "Tue 06 09:00"]),
        ("0 9 * * Sat,mon", ["Sat 03 09:00", "Mon 05 09:00", "Sat 10 09:00"]),
        ("0 9 * * */2", ["Sat 03 09:00", "Sun 04 09:00", "Tue 06 09:00"]),
        ("0 9 * * */1", ["Sat 03 09:00", "Sun 04 09:00"]),
        ("0 9 * * */10", ["Sun 04 09:00", "Sun 11 09:00"]),
        ("0 9 */2 * mon", ["Mon 05 09:00", "Mon 19 09:00"]),
        ("0 9 * * 5-7", ["Sat 03 09:00", "Sun 04 09:00", "Fri 09 09:00"]),
        ("0 9 6 * sun", ["Sun 04 09:00", "Tue 06 09:00", "Sun 11 09:00"]),
        ("0 9 6 * *", ["Tue 06 09:00", "Fri 06 09:00"]),
    ],
)
def test_a_timer_fires_when_cron_would(expression: str, expected: list[str]) -> None:
    assert firings(expression, len(expected)) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "* * * * 8",
        "* * * * 5-2",
        "* * * * */0",
        "* * * * mon-",
        "a b c d e",
    ],
)
def test_what_cron_could_not_read_is_refused_by_its_field(expression: str) -> None:
    if not expression:
        check_cron("spec.rule.cron", expression)
        return
    with pytest.raises(InvalidArgument) as caught:
        check_cron("spec.rule.cron", expression)
    assert caught.value.field == "spec.rule.cron"
