"""Who labels. An oracle of the scheduler's own is one file here and one line in `oracles.registry`."""
