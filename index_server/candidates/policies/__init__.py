"""Candidate policies by name. A new one is one file and one line here."""

from index_server.candidates.policies.full import FullPolicy
from index_server.candidates.policies.seals import SealsPolicy
from index_server.ports import CandidatePolicy

POLICIES: dict[str, CandidatePolicy] = {policy.name: policy for policy in (SealsPolicy(), FullPolicy())}
DEFAULT_POLICY = SealsPolicy.name

__all__ = ["DEFAULT_POLICY", "POLICIES"]
