"""SchedulerService over gRPC: calls in, services out."""

# ruff: noqa: N802, D102, ARG002 - names and signatures are gRPC's, and scheduler.proto says what each call does.

from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError

import grpc

from scheduler.service import (
    AnnotationService,
    AuditService,
    CampaignService,
    ErasureService,
    LabelService,
    OracleReportService,
    ReviewService,
    RoundService,
    TaskService,
    WatchService,
)
from sealpool.runtime.callers import caller_of
from sealpool.v1 import scheduler_pb2 as pb
from sealpool.v1 import scheduler_pb2_grpc


class SchedulerServicer(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Hands each call to the service that answers it. The contract is in scheduler.proto."""

    def __init__(
        self,
        *,
        campaigns: CampaignService,
        rounds: RoundService,
        tasks: TaskService,
        labels: LabelService,
        annotations: AnnotationService,
        reviews: ReviewService,
        audits: AuditService,
        oracle_reports: OracleReportService,
        watch: WatchService,
        erasure: ErasureService,
    ) -> None:
        self._campaigns = campaigns
        self._rounds = rounds
        self._tasks = tasks
        self._labels = labels
        self._annotations = annotations
        self._reviews = reviews
        self._audits = audits
        self._oracle_reports = oracle_reports
        self._watch = watch
        self._erasure = erasure

    def CreateCampaign(
        self, request: pb.CreateCampaignRequest, context: grpc.ServicerContext
    ) -> pb.CreateCampaignResponse:
        return self._campaigns.create(request)

    def UpdateCampaign(
        self, request: pb.UpdateCampaignRequest, context: grpc.ServicerContext
    ) -> pb.UpdateCampaignResponse:
        return self._campaigns.update(request)

    def GetCampaign(self, request: pb.GetCampaignRequest, context: grpc.ServicerContext) -> pb.GetCampaignResponse:
        return pb.GetCampaignResponse(campaign=self._campaigns.get(request.name))

    def ListCampaigns(
        self, request: pb.ListCampaignsRequest, context: grpc.ServicerContext
    ) -> pb.ListCampaignsResponse:
        caller = caller_of(context)
        campaigns = self._campaigns.list(include_archived=request.include_archived)
        return pb.ListCampaignsResponse(
            campaigns=[campaign for campaign in campaigns if caller.may_use(campaign.spec.pool)]
        )

    def PauseCampaign(
        self, request: pb.PauseCampaignRequest, context: grpc.ServicerContext
    ) -> pb.PauseCampaignResponse:
        return self._campaigns.pause(request)

    def ResumeCampaign(
        self, request: pb.ResumeCampaignRequest, context: grpc.ServicerContext
    ) -> pb.ResumeCampaignResponse:
        return self._campaigns.resume(request)

    def ArchiveCampaign(
        self, request: pb.ArchiveCampaignRequest, context: grpc.ServicerContext
    ) -> pb.ArchiveCampaignResponse:
        return self._campaigns.archive(request)

    def Erase(self, request: pb.EraseRequest, context: grpc.ServicerContext) -> pb.EraseResponse:
        return self._erasure.erase(request)

    def RunRound(self, request: pb.RunRoundRequest, context: grpc.ServicerContext) -> pb.RunRoundResponse:
        return self._rounds.run(request, left=_left(context))

    def LeaseTasks(self, request: pb.LeaseTasksRequest, context: grpc.ServicerContext) -> pb.LeaseTasksResponse:
        return self._tasks.lease(request)

    def RenewLeases(self, request: pb.RenewLeasesRequest, context: grpc.ServicerContext) -> pb.RenewLeasesResponse:
        return self._tasks.renew(request)

    def ReleaseTasks(self, request: pb.ReleaseTasksRequest, context: grpc.ServicerContext) -> pb.ReleaseTasksResponse:
        return self._tasks.release(request)

    def SubmitLabels(self, request: pb.SubmitLabelsRequest, context: grpc.ServicerContext) -> pb.SubmitLabelsResponse:
        return self._labels.submit(request)

    def ListAnnotations(
        self, request: pb.ListAnnotationsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListAnnotationsResponse]:
        for chunk in self._annotations.list(request):
            yield pb.ListAnnotationsResponse(annotations=chunk)

    def ReviewLabels(self, request: pb.ReviewLabelsRequest, context: grpc.ServicerContext) -> pb.ReviewLabelsResponse:
        return self._reviews.review(request)

    def DrawAudit(self, request: pb.DrawAuditRequest, context: grpc.ServicerContext) -> pb.DrawAuditResponse:
        return self._audits.draw(request)

    def GetOracleReport(
        self, request: pb.GetOracleReportRequest, context: grpc.ServicerContext
    ) -> pb.GetOracleReportResponse:
        return self._oracle_reports.report(request)

    def ListLabels(
        self, request: pb.ListLabelsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListLabelsResponse]:
        for chunk in self._labels.list(request):
            yield pb.ListLabelsResponse(labels=chunk)

    def ListRounds(self, request: pb.ListRoundsRequest, context: grpc.ServicerContext) -> pb.ListRoundsResponse:
        return pb.ListRoundsResponse(rounds=self._rounds.list(request.campaign))

    def WatchCampaign(
        self, request: pb.WatchCampaignRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchCampaignResponse]:
        context.add_callback(self._watch.wake)
        yield from self._watch.watch(request, is_active=context.is_active)


def _left(context: grpc.ServicerContext) -> Future[None]:
    left: Future[None] = Future()

    def leave() -> None:
        try:
            left.set_result(None)
        except InvalidStateError:
            return

    if not context.add_callback(leave):
        leave()
    return left
