"""The index server's figures: `python -m benchmarks.index`. Each module measures one and names its rows.

A new figure is one file, and one line in `figures`.
"""
