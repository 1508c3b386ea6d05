"""How a client connects, waits and tries again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sealpool.runtime.tracing import NO_TRACING, CallTracer


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientOptions:
    """Settings of a client.

    Parameters
    ----------
    timeout_s
        Deadline of a call that answers at once, all tries included.
    long_timeout_s
        Deadline of a call that works or streams: upload, scan, expand, train, select, run a round.
    retry_for_s
        How long a call is tried again while the service is UNAVAILABLE (starting, restarting, away), or full and says
        when there may be room; from when it went away, however long the call had gone on before. One that would do
        harm twice, like deleting a pool, is tried again only where the service has not begun with it. 0 gives up at
        once. Long enough for a restart is a good choice in a service, short in a command line.
    max_message_bytes
        Largest message taken.
    chunk_bytes
        Size of the messages that a big upload is cut into; under the server's max_message_bytes.
    chunk_ids
        Ids in one request at most; under the server's max_ids. Longer lists are sent in several calls.
    ca_certificate
        PEM file of the authority that signed the server's certificate; turns TLS on.
    client_certificate, client_key
        PEM files that show who we are, where the server asks for it.
    token
        Sent with every call, where the server asks for one. None: what the environment's SEALPOOL_TOKEN holds, if
        anything; "" sends none.
    token_file
        File with the token in its only line, in place of `token`: looked at once a second, so that a token can be
        changed under a service that runs.
    insecure
        Send the token also without TLS to another machine, where anyone on the way can take it.
    affinity
        Send the calls of a campaign to the same server while it is there, where the target (dns:, ipv4:) stands for
        several; else each call goes to the next one. LearnerClient alone names campaigns: a learner holds the
        candidates of those it has seen. Turns on a switch of gRPC in this process's environment.
    request_id
        Asked in each call, and again in each try, for the id under which services log it: up to 64 letters, digits and
        ._:/+=@-. None, and where it says "", lets the service make one; errors carry it as `request_id` either way.
    tracer
        Makes spans of calls: what `sealpool.client.tracing.client_tracer` returns.
    """

    timeout_s: float = 30.0
    long_timeout_s: float = 3600.0
    retry_for_s: float = 30.0
    max_message_bytes: int = 64 << 20
    chunk_bytes: int = 2 << 20
    chunk_ids: int = 50_000
    ca_certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    insecure: bool = False
    affinity: bool = False
    request_id: Callable[[], str] | None = None
    tracer: CallTracer = NO_TRACING
