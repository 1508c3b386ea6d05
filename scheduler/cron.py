"""Five-field cron expressions, read as cron reads them.

APScheduler's own reader of crontab lines counts weekdays from Monday = 0, where cron has Sunday = 0 (and 7), and asks
for day of month and day of week together, where cron takes either once both are given without a star.
"""

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from sealpool.errors import InvalidArgument

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MAX_CRON_CHARACTERS = 256


def check_cron(field: str, expression: str) -> None:
    """Raise InvalidArgument unless `expression` is "" or can be read."""
    if not expression:
        return
    try:
        cron_trigger(expression)
    except ValueError as error:
        raise InvalidArgument(field, f"{expression[:140]!r} is not a five-field cron expression: {error}") from error


def cron_trigger(expression: str) -> BaseTrigger:
    """Return the trigger that fires when cron would, in UTC.

    Raises
    ------
    ValueError
        The expression cannot be read.
    """
    parts = expression.split()
    if len(parts) != 5 or len(expression) > MAX_CRON_CHARACTERS:
        raise ValueError(f"it has {len(parts)} fields")
    minute, hour, day, month, weekday = parts
    times = {"minute": minute, "hour": hour, "month": month, "timezone": "UTC"}
    weekdays = _weekdays(weekday)
    if day.startswith("*") or weekday.startswith("*"):
        return CronTrigger(day=day, day_of_week=weekdays, **times)
    return OrTrigger([CronTrigger(day=day, **times), CronTrigger(day_of_week=weekdays, **times)])


def _weekdays(field: str) -> str:
    days: set[int] = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        low, high = (0, 6) if span == "*" else (_weekday(first), _weekday(last if dash else first))
        if step and not dash and span != "*":
            high = 6
        if low > high or not (step or "1").isdecimal() or not int(step or 1):
            raise ValueError(f"{part!r} is not a range of weekdays")
        days.update(day % 7 for day in range(low, high + 1, int(step or 1)))
    return ",".join(_DAYS[day] for day in sorted(days))


def _weekday(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if text in ("0", "1", "2", "3", "4", "5", "6", "7"):
        return int(text)
    raise ValueError(f"{text!r} is not a weekday")
