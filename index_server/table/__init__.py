"""The items of a pool in memory: which id lies at which row, and where in the store; built for many millions."""
