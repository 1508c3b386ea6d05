"""Items as a store reads them out in bulk."""

from dataclasses import dataclass

import pyarrow as pa

from index_server.records import FloatMatrix


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredItems:
    """Some items without a Python object for each.

    Parameters
    ----------
    ids
        (n,) strings without nulls; a slice of a longer array as a rule, so its offset is not 0.
    vectors
        (n, d) float32 or float16 as stored. They belong to the caller, but may not be writable.
    """

    ids: pa.StringArray
    vectors: FloatMatrix

    def __len__(self) -> int:
        return len(self.ids)
