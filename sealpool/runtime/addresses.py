"""Which addresses can be reached from this machine alone."""

from ipaddress import ip_address


def is_loopback(address: str) -> bool:
    """Whether host:port can be reached from this machine alone. A Unix socket can.

    A scheme of gRPC's (`dns:///host:port`, `ipv4:host:port,host:port`) is passed over.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    _, _, rest = address.rpartition("/")
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        rest = rest.removeprefix(scheme)
    return all(map(_is_own, rest.split(",")))


def _is_own(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(peer: str) -> str:
    """Return the host in gRPC's name of a peer: "ipv4:10.0.0.1:5000" is "ipv4:10.0.0.1"."""
    return peer if peer.startswith("unix") else peer.rpartition(":")[0]
