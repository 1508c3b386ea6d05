"""Pools embedded anew, as jobs that outlive a restart."""
