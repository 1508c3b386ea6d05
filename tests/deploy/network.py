"""Which connections a set of NetworkPolicies lets through, as a cluster would decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A pod with its labels and those of its namespace, or an address outside the cluster."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    namespace_labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    address: str = ""


def allowed(policies: Sequence[Mapping], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection may be opened: egress of the source and ingress of the target."""
    return _side(policies, "egress", source, target, port, protocol) and _side(
        policies, "ingress", target, source, port, protocol
    )


def _side(policies, direction, pod, other, port, protocol):
    if pod.address:
        return True
    of_pod = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction.capitalize() in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not of_pod:
        return True
    rules = [(policy, rule) for policy in of_pod for rule in policy["spec"].get(direction) or []]
    return any(_peer(policy, rule, direction, other) and _port(rule, port, protocol) for policy, rule in rules)


def _peer(policy, rule, direction, other):
    entries = rule.get("to" if direction == "egress" else "from")
    return not entries or any(_entry(policy, entry, other) for entry in entries)


def _entry(policy, entry, other):
    if "ipBlock" in entry:
        inside = bool(other.address) and ip_address(other.address) in ip_network(entry["ipBlock"]["cidr"])
        return inside and not any(
            ip_address(other.address) in ip_network(excluded) for excluded in entry["ipBlock"].get("except", [])
        )
    if other.address:
        return False
    if "namespaceSelector" in entry:
        near = _selects(entry["namespaceSelector"], other.namespace_labels)
    else:
        near = other.namespace == policy["metadata"]["namespace"]
    return near and _selects(entry.get("podSelector", {}), other.labels)


def _port(rule, port, protocol):
    ports = rule.get("ports")
    return not ports or any(
        entry["protocol"] == protocol
        and entry.get("port", port) <= port <= entry.get("endPort", entry.get("port", port))
        for entry in ports
    )


def _selects(selector, labels):
    if set(selector) - {"matchLabels"}:
        raise NotImplementedError(f"only matchLabels are understood, not {sorted(selector)}")
    return selector.get("matchLabels", {}).items() <= labels.items()
