"""Candidate policies by name. A new one is one file and one line here."""

from dataclasses import asdict

from index_server.candidates.policies.anchoral import AnchoralPolicy
from index_server.candidates.policies.full import FullPolicy
from index_server.candidates.policies.random_subset import RandomSubsetPolicy
from index_server.candidates.policies.seals import SealsPolicy
from index_server.ports import CandidatePolicy, PolicyOptions
from sealpool.errors import InvalidArgument

_REGISTERED: tuple[CandidatePolicy, ...] = (SealsPolicy(), AnchoralPolicy(), RandomSubsetPolicy(), FullPolicy())
POLICIES = {policy.name: policy for policy in _REGISTERED}
DEFAULT_POLICY = SealsPolicy.name

_UINT32_MAX = (1 << 32) - 1
_RANGES = {
    "k": (1, _UINT32_MAX),
    "max_candidates": (1, _UINT32_MAX),
    "subpool_size": (1, _UINT32_MAX),
    "anchors": (1, 1000),
    "seed": (0, (1 << 64) - 1),
}


def resolve(
    spec_name: str, k: int = 0, max_candidates: int = 0, subpool_size: int = 0, anchors: int = 0, seed: int = 0
) -> tuple[CandidatePolicy, PolicyOptions]:
    """Return the policy that a PolicySpec names, and its options with 0 replaced by the policy's defaults.

    The server's own limits (`max_k`, `max_candidates`) are not looked at.

    Raises
    ------
    InvalidArgument
        No such policy, an option that this policy does not have, or one out of its range; names `policy.<field>`.
    """
    name = spec_name or DEFAULT_POLICY
    if name not in POLICIES:
        raise InvalidArgument("policy.name", f"{name[:140]!r} is not one of {', '.join(POLICIES)}")
    policy = POLICIES[name]
    told = PolicyOptions(k=k, max_candidates=max_candidates, subpool_size=subpool_size, anchors=anchors, seed=seed)
    defaults = asdict(policy.defaults)
    return policy, PolicyOptions(
        **{option: _checked(policy, option, value) or defaults[option] for option, value in asdict(told).items()}
    )


def _checked(policy: CandidatePolicy, option: str, value: int) -> int:
    low, high = _RANGES[option]
    if value and option not in policy.options:
        has = ", ".join(sorted(policy.options)) or "none"
        raise InvalidArgument(f"policy.{option}", f"is no option of {policy.name!r}, which has: {has}")
    if value and not low <= value <= high:
        raise InvalidArgument(f"policy.{option}", f"{value:,} is not in {low:,} to {high:,}")
    return value


__all__ = ["DEFAULT_POLICY", "POLICIES", "resolve"]
