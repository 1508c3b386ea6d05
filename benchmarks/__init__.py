"""What the figures in the documentation rest on: each benchmark prints its tables and writes results/*.json.

Run from a checkout with `python -m benchmarks.index`; it measures real processes through the public client.
"""
