"""The scheduler: the one place where campaigns, rounds, tasks and labels are true.

It asks the learner to train and select and the index server for items; neither ever calls back.
"""
