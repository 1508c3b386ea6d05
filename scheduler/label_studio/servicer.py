"""LabelStudioService over gRPC: calls in, service out."""

# ruff: noqa: N802, D102, ARG002 - names and signatures are gRPC's, and label_studio.proto says what each call does.

import grpc

from scheduler.label_studio.service import LabelStudioService
from sealpool.v1 import label_studio_pb2 as pb
from sealpool.v1 import label_studio_pb2_grpc


class LabelStudioServicer(label_studio_pb2_grpc.LabelStudioServiceServicer):
    """Hands each call to the service that answers it. The contract is in label_studio.proto."""

    def __init__(self, service: LabelStudioService) -> None:
        self._service = service

    def LinkLabelStudio(
        self, request: pb.LinkLabelStudioRequest, context: grpc.ServicerContext
    ) -> pb.LinkLabelStudioResponse:
        return self._service.link(request)

    def UnlinkLabelStudio(
        self, request: pb.UnlinkLabelStudioRequest, context: grpc.ServicerContext
    ) -> pb.UnlinkLabelStudioResponse:
        return self._service.unlink(request)

    def SyncLabelStudio(
        self, request: pb.SyncLabelStudioRequest, context: grpc.ServicerContext
    ) -> pb.SyncLabelStudioResponse:
        return self._service.sync(request)

    def GetLabelStudioLink(
        self, request: pb.GetLabelStudioLinkRequest, context: grpc.ServicerContext
    ) -> pb.GetLabelStudioLinkResponse:
        return pb.GetLabelStudioLinkResponse(link=self._service.get(request.campaign))
