"""The states of campaigns, rounds and tasks, and which may follow which."""

from enum import StrEnum


class CampaignState(StrEnum):
    """Life of a campaign; the values are the names of the contract's enum in lower case."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    ARCHIVED = "archived"


class RoundState(StrEnum):
    """Phase of a round; the values are the names of the contract's enum in lower case."""

    TRAINING = "training"
    EVALUATING = "evaluating"
    SELECTING = "selecting"
    LABELLING = "labelling"
    FINISHED = "finished"
    FAILED = "failed"


class RoundKind(StrEnum):
    """What a round does; decided when it begins, and never again."""

    SEED = "seed"  # draws the seed set, without a model
    # Picks a batch without a model, because the labels so far cannot train one. Such rounds used to draw at random, and
    # databases hold that word.
    WITHOUT_MODEL = "random"
    MODEL = "model"  # trains, evaluates, selects
    FINAL = "final"  # trains and evaluates: the budget is spent


class TaskState(StrEnum):
    """Life of a task. A leased task is an open one whose lease has not run out."""

    OPEN = "open"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"
    GIVEN_UP = "given_up"  # annotators could not tell, or not agree


class LabelPurpose(StrEnum):
    """What a label is for, and the task that asks for it."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    AUDIT = "audit"
    # Of tasks alone: the item has a label that is doubted, or is to be compared. The answer is a label for training.
    REVIEW = "review"


class Audience(StrEnum):
    """Whom a task waits for."""

    PEOPLE = "people"
    ORACLE = "oracle"  # the campaign's own; what that cannot tell goes to people


class Outcome(StrEnum):
    """What an annotator did with an item."""

    LABEL = "label"
    SKIP = "skip"
    CANNOT_TELL = "cannot_tell"


class DrawKind(StrEnum):
    """What items were drawn for."""

    EVALUATION = "evaluation"
    TEST_POOL = "test_pool"
    STOP_SET = "stop_set"


NEXT_STATES: dict[RoundState, frozenset[RoundState]] = {
    RoundState.TRAINING: frozenset({RoundState.EVALUATING, RoundState.FAILED}),
    RoundState.EVALUATING: frozenset({RoundState.SELECTING, RoundState.FINISHED, RoundState.FAILED}),
    RoundState.SELECTING: frozenset({RoundState.LABELLING, RoundState.FAILED}),
    RoundState.LABELLING: frozenset({RoundState.FINISHED, RoundState.FAILED}),
    RoundState.FINISHED: frozenset(),
    RoundState.FAILED: frozenset(),
}
"""Every transition there is. EVALUATING ends a FINAL round."""

FIRST_STATE: dict[RoundKind, RoundState] = {
    RoundKind.SEED: RoundState.SELECTING,
    RoundKind.WITHOUT_MODEL: RoundState.SELECTING,
    RoundKind.MODEL: RoundState.TRAINING,
    RoundKind.FINAL: RoundState.TRAINING,
}

ENDED = frozenset(state for state, following in NEXT_STATES.items() if not following)


def check_transition(before: RoundState, after: RoundState) -> None:
    """Raise AssertionError if a round in state `before` may not go to `after`: a fault of ours, never a caller's."""
    if after not in NEXT_STATES[before]:
        raise AssertionError(f"a round goes from {before} to one of {sorted(NEXT_STATES[before])}, not to {after}")
