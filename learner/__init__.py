"""The learner: trains on the labelled set, scores candidates, predicts, evaluates, embeds.

It owns the checkpoints of each campaign's rounds; what else it holds is a cache that the index server can fill again.
"""
