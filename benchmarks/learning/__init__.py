"""Learning curves of the strategies on real, labelled texts.

In process: the learner's own models, strategies and pickers, over vectors of a frozen encoder, without servers.
"""
