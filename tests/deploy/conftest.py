import time
from collections.abc import Iterator

import pytest

from tests.deploy.watched_campaigns import run_all
from tests.deploy.watched_services import Seen, scraped_once, watched_services


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Several campaigns as Prometheus saw them: half a minute, at the end of which the services are stopped."""
    with watched_services(tmp_path_factory.mktemp("watched")) as watched:
        fresh_at = scraped_once(watched)
        run_all(watched)
        yield Seen(prometheus=watched.prometheus, fresh_at=fresh_at, ended_at=time.time())
