"""The neighbour graph of a pool: nearest neighbours kept on disk, so that growing a candidate pool is a look-up.

It numbers items by *keys*, 0, 1, 2 … in the order of arrival, which outlive a restart as rows of the index do not.
"""
