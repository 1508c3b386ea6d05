"""The names that the contract knows: query strategies, models, estimators, with what each needs and where it is from.

One list for all: the scheduler checks a campaign's spec against it, the command line prints it, the learner's
registries hold exactly these names.
"""
