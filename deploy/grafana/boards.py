"""All boards, as the files that Grafana reads."""

import json
from collections.abc import Mapping

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import campaign, fleet, index_server, learner


def pages() -> Mapping[str, str]:
    """Return the text of each board by its path below deploy/."""
    boards = {
        "campaign": campaign.board(),
        "index-server": index_server.board(),
        "learner": learner.board(),
        "fleet": fleet.board(),
    }
    return {
        f"grafana/dashboards/{name}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in boards.items()
    }
