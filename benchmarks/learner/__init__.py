"""The learner's figures: `python -m benchmarks.learner`. Each module measures some and names its rows.

A new figure is one function, and one line in `figures`. Peers run in this process, from the extra `bench`; one that is
not installed is a row that says so.
"""
