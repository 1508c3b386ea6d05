"""The index server: pools of embeddings on disk and ready to search, and the candidate pools that grow in them.

Imports run downwards: spec, ports, items <- engines, store, candidates <- pool, catalog <- servicer, app.
"""
