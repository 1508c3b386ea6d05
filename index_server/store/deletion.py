"""Deletion files: which items of a fragment are gone."""

from typing import Any

import lance
import numpy as np

from index_server.ports import Addresses


def delete_items(dataset: lance.LanceDataset, addresses: Addresses) -> tuple[list[int], list[Any]]:
    """Write deletion files for `addresses`; return the fragments that become empty, and the others changed."""
    removed, updated = [], []
    fragment_ids = addresses >> np.uint64(32)
    offsets = addresses & np.uint64(0xFFFFFFFF)
    for fragment_id in np.unique(fragment_ids).tolist():
        chosen = offsets[fragment_ids == fragment_id].tolist()
        fragment: Any = dataset.get_fragment(fragment_id)
        fragment = fragment.delete_rows(chosen)
        if fragment is None:
            removed.append(fragment_id)
        else:
            updated.append(fragment)
    return removed, updated
