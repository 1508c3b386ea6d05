"""Client of the scheduler, for campaigns in Label Studio."""

import uuid

from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.v1 import label_studio_pb2, label_studio_pb2_grpc


class LabelStudioClient(Connection):
    """Links of campaigns to projects in Label Studio, over gRPC to the scheduler.

    Calls that change something carry a request id, made up where none is given, so that trying again is harmless.
    """

    def __init__(self, target: str = "127.0.0.1:7303", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = label_studio_pb2_grpc.LabelStudioServiceStub(self._channel)

    def link(
        self,
        campaign: str,
        *,
        server: str = "",
        shown: str = "",
        webhook_url: str = "",
        request_id: str | None = None,
    ) -> label_studio_pb2.LabelStudioLink:
        """Make a project for a campaign and keep the two in step; the same again answers the link there is.

        Parameters
        ----------
        server
            One of the scheduler's label_studio_servers; "" is "default".
        shown
            What annotators see: "text" (also for "") or "image".
        webhook_url
            Where Label Studio reaches the scheduler over HTTP; "" is polling alone.
        """
        request = label_studio_pb2.LinkLabelStudioRequest(
            campaign=campaign,
            server=server,
            input=shown,
            webhook_url=webhook_url,
            request_id=_or_new(request_id),
        )
        return self.call(lambda s: self._stub.LinkLabelStudio(request, timeout=s), long=True).link

    def unlink(self, campaign: str, *, request_id: str | None = None) -> None:
        """Keep them in step no longer; the project stays."""
        request = label_studio_pb2.UnlinkLabelStudioRequest(campaign=campaign, request_id=_or_new(request_id))
        self.call(lambda s: self._stub.UnlinkLabelStudio(request, timeout=s), long=True)

    def sync(self, campaign: str) -> label_studio_pb2.SyncLabelStudioResponse:
        """Push and fetch now."""
        request = label_studio_pb2.SyncLabelStudioRequest(campaign=campaign)
        return self.call(lambda s: self._stub.SyncLabelStudio(request, timeout=s), long=True)

    def get_link(self, campaign: str) -> label_studio_pb2.LabelStudioLink:
        """Return the link as it stands; NotFound where there is none."""
        request = label_studio_pb2.GetLabelStudioLinkRequest(campaign=campaign)
        return self.call(lambda s: self._stub.GetLabelStudioLink(request, timeout=s)).link


def _or_new(request_id: str | None) -> str:
    return uuid.uuid4().hex if request_id is None else request_id
