"""Rounds: how one begins, its phases, and who runs it when.

Each phase ends in one transaction that records its result and moves the round's state, and gives the same result when
it is run again. So a round that was cut off anywhere goes on from its last state to the same picks.
"""
