"""The least time of an exact search on a device: it must read the vectors once, and multiply them all."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """What a device can do at most.

    Parameters
    ----------
    bandwidth
        Bytes a second.
    matrix_rate
        Operations a second, a multiplication and an addition counting as two.
    """

    bandwidth: float
    matrix_rate: float

    def seconds(self, *, queries: int, items: int, dimension: int, item_bytes: int) -> tuple[float, str]:
        """Return the least seconds of one exact search, and which of the two they come from.

        The answer (k of each query) and the queries are left out: they are small beside the items.
        """
        reading = items * dimension * item_bytes / self.bandwidth
        multiplying = 2.0 * queries * items * dimension / self.matrix_rate
        return (reading, "memory") if reading >= multiplying else (multiplying, "matrix")
