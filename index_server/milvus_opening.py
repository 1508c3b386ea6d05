"""The Milvus that the settings name."""

import secrets

from index_server.engines.milvus_server import MilvusServer, server_identity
from index_server.settings import IndexServerSettings
from sealpool.runtime.logs import Logger


def open_milvus(settings: IndexServerSettings, *, log: Logger) -> MilvusServer | None:
    """Return the Milvus of the settings, without reaching for it yet; None where they name none.

    `settings.data_dir` must be this process's alone: what is written there says which collections are its own.

    Raises
    ------
    FailedPrecondition, InvalidArgument, OSError
        See MilvusServer; the token file cannot be read.
    """
    if not settings.milvus_uri:
        return None
    token = settings.milvus_token_file
    return MilvusServer(
        settings.milvus_uri,
        token=token.read_text().strip() if token else "",
        prefix=settings.milvus_prefix,
        owner=server_identity(settings.data_dir / "milvus.owner", secrets.token_hex(8)),
        start=secrets.token_hex(4),
        index=settings.milvus_index,
        timeout_s=settings.milvus_timeout_s,
        log=log,
    )
