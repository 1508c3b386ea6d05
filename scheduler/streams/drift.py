"""Whether the model's doubt has changed: ADWIN over the recent past (Bifet and Gavaldà, SDM 2007)."""

import base64
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import FailedPrecondition

WINDOW = 1_024
CHECKED_EVERY = 32
_SCALE = 65_535


@dataclass(kw_only=True, slots=True)
class DriftWatch:
    """Uncertainties since the last change, at most 1,024, and how many changes were found.

    River's ADWIN keeps its buckets where only a pickle reaches them, which neither another version nor a database
    should have to read. So the window itself is kept, and every 32 items, which is how often ADWIN looks, a new ADWIN
    is fed with it: 0.4 ms. What is found then follows from what is on disk alone, however items were grouped and
    however often the scheduler was started. The price is that changes too slow for a window of 1,024 are not seen.
    """

    recent: list[int] = field(default_factory=list)  # in 1/65,535
    drifts: int = 0
    last_drift_at: int = 0

    def add(self, uncertainty: float, *, seen: int) -> None:
        """Take an uncertainty, 0 to 1, of the item that made `seen` items.

        Raises
        ------
        FailedPrecondition
            River is not installed.
        """
        self.recent.append(round(uncertainty * _SCALE))
        if seen % CHECKED_EVERY:
            return
        del self.recent[:-WINDOW]
        kept = _kept(self.recent)
        if kept < len(self.recent):
            del self.recent[: len(self.recent) - kept]
            self.drifts += 1
            self.last_drift_at = seen

    def packed(self) -> str:
        """Return the window as text: base64 of 16-bit numbers, little-endian."""
        return base64.b64encode(np.asarray(self.recent, "<u2").tobytes()).decode()

    @staticmethod
    def unpacked(text: str) -> list[int]:
        """Return the window that `packed` wrote."""
        numbers: NDArray[np.uint16] = np.frombuffer(base64.b64decode(text), "<u2")
        return [int(number) for number in numbers]


def _kept(recent: list[int]) -> int:
    """Return how many of the latest values are of one distribution, by ADWIN; all of them if it finds no change."""
    try:
        adwin = import_module("river.drift").ADWIN(clock=CHECKED_EVERY)
    except ModuleNotFoundError as error:
        raise FailedPrecondition('streams need river: pip install "sealpool[stream]"') from error
    for position, value in enumerate(recent, 1):
        adwin.update(value / _SCALE)
        if adwin.drift_detected:
            return int(adwin.width) + len(recent) - position
    return len(recent)
