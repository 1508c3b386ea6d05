"""Pools on disk: one directory a pool, durable before anything is acknowledged."""
