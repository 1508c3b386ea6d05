"""Client of the scheduler."""

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence

from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.v1 import scheduler_pb2, scheduler_pb2_grpc


class SchedulerClient(Connection):
    """Campaigns, rounds, tasks and labels, over gRPC.

    Calls that change something carry a request id, made up where none is given, so that trying again is harmless.
    """

    def __init__(self, target: str = "127.0.0.1:7303", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = scheduler_pb2_grpc.SchedulerServiceStub(self._channel)

    def create_campaign(
        self, spec: scheduler_pb2.CampaignSpec, *, validate_only: bool = False, request_id: str | None = None
    ) -> scheduler_pb2.Campaign:
        """Begin a campaign, or only check that it could. Raises AlreadyExists if the name is taken."""
        request = scheduler_pb2.CreateCampaignRequest(
            spec=spec, validate_only=validate_only, request_id=_or_new(request_id)
        )
        return self.call(lambda s: self._stub.CreateCampaign(request, timeout=s)).campaign

    def update_campaign(
        self, spec: scheduler_pb2.CampaignSpec, *, validate_only: bool = False, request_id: str | None = None
    ) -> scheduler_pb2.UpdateCampaignResponse:
        """Change what may change of a campaign while it runs; `spec` is all of it as it is to be."""
        request = scheduler_pb2.UpdateCampaignRequest(
            spec=spec, validate_only=validate_only, request_id=_or_new(request_id)
        )
        return self.call(lambda s: self._stub.UpdateCampaign(request, timeout=s))

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        """Return one campaign as it stands."""
        request = scheduler_pb2.GetCampaignRequest(name=name)
        return self.call(lambda s: self._stub.GetCampaign(request, timeout=s)).campaign

    def list_campaigns(self, *, include_archived: bool = False) -> list[scheduler_pb2.Campaign]:
        """Return all campaigns, by name."""
        request = scheduler_pb2.ListCampaignsRequest(include_archived=include_archived)
        return list(self.call(lambda s: self._stub.ListCampaigns(request, timeout=s)).campaigns)

    def pause_campaign(self, name: str, *, request_id: str | None = None) -> scheduler_pb2.Campaign:
        """Start no round and hand out no task until it is resumed."""
        request = scheduler_pb2.PauseCampaignRequest(name=name, request_id=_or_new(request_id))
        return self.call(lambda s: self._stub.PauseCampaign(request, timeout=s)).campaign

    def resume_campaign(self, name: str, *, request_id: str | None = None) -> scheduler_pb2.Campaign:
        """Go on after a pause."""
        request = scheduler_pb2.ResumeCampaignRequest(name=name, request_id=_or_new(request_id))
        return self.call(lambda s: self._stub.ResumeCampaign(request, timeout=s)).campaign

    def archive_campaign(self, name: str, *, request_id: str | None = None) -> scheduler_pb2.Campaign:
        """End a campaign for good."""
        request = scheduler_pb2.ArchiveCampaignRequest(name=name, request_id=_or_new(request_id))
        return self.call(lambda s: self._stub.ArchiveCampaign(request, timeout=s)).campaign

    def erase(
        self, campaign: str, *, annotators: Sequence[str] = (), item_ids: Sequence[str] = ()
    ) -> scheduler_pb2.EraseResponse:
        """Replace annotators' names and items' ids by pseudonyms, for good; see Erase in scheduler.proto.

        Raises
        ------
        FailedPrecondition
            A pool of the campaign still has an item; or a round is under way.
        """
        request = scheduler_pb2.EraseRequest(campaign=campaign, annotators=annotators, item_ids=item_ids)
        return self.call(lambda s: self._stub.Erase(request, timeout=s), long=True)

    def run_round(self, campaign: str, *, request_id: str | None = None) -> scheduler_pb2.RunRoundResponse:
        """Run one round now and return when its picks are tasks."""
        request = scheduler_pb2.RunRoundRequest(campaign=campaign, request_id=_or_new(request_id))
        return self.call(lambda s: self._stub.RunRound(request, timeout=s), long=True)

    def lease_tasks(
        self,
        campaign: str,
        *,
        annotator: str,
        max_tasks: int,
        lease_s: float = 0,
        include_predictions: bool = False,
        request_id: str | None = None,
    ) -> scheduler_pb2.LeaseTasksResponse:
        """Take open tasks, most wanted first, for `lease_s` seconds (0: the campaign's)."""
        request = scheduler_pb2.LeaseTasksRequest(
            campaign=campaign,
            annotator=annotator,
            max_tasks=max_tasks,
            lease_seconds=lease_s,
            include_predictions=include_predictions,
            request_id=_or_new(request_id),
        )
        return self.call(lambda s: self._stub.LeaseTasks(request, timeout=s))

    def submit_labels(
        self,
        campaign: str,
        labels: Mapping[str, Sequence[str]],
        *,
        annotator: str,
        purpose: scheduler_pb2.LabelPurpose.ValueType = scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED,
        request_id: str | None = None,
    ) -> scheduler_pb2.SubmitLabelsResponse:
        """Hand in labels, item id to classes: all of them or none."""
        given = [scheduler_pb2.NewLabel(item_id=item, classes=classes) for item, classes in labels.items()]
        return self.submit_annotations(campaign, given, annotator=annotator, purpose=purpose, request_id=request_id)

    def submit_annotations(
        self,
        campaign: str,
        annotations: Sequence[scheduler_pb2.NewLabel],
        *,
        annotator: str,
        purpose: scheduler_pb2.LabelPurpose.ValueType = scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED,
        request_id: str | None = None,
    ) -> scheduler_pb2.SubmitLabelsResponse:
        """Hand in what an annotator said: labels, skips, "cannot tell", with confidence and comments; all or none."""
        request = scheduler_pb2.SubmitLabelsRequest(
            campaign=campaign, annotator=annotator, labels=annotations, purpose=purpose, request_id=_or_new(request_id)
        )
        return self.call(lambda s: self._stub.SubmitLabels(request, timeout=s))

    def renew_leases(
        self,
        campaign: str,
        *,
        annotator: str,
        task_ids: Sequence[str] = (),
        lease_s: float = 0,
        request_id: str | None = None,
    ) -> scheduler_pb2.RenewLeasesResponse:
        """Hold leased tasks (none named: all of the annotator's) for `lease_s` seconds from now."""
        request = scheduler_pb2.RenewLeasesRequest(
            campaign=campaign,
            annotator=annotator,
            task_ids=task_ids,
            lease_seconds=lease_s,
            request_id=_or_new(request_id),
        )
        return self.call(lambda s: self._stub.RenewLeases(request, timeout=s))

    def release_tasks(
        self, campaign: str, *, annotator: str, task_ids: Sequence[str] = (), request_id: str | None = None
    ) -> int:
        """Give leased tasks (none named: all of the annotator's) back; return how many."""
        request = scheduler_pb2.ReleaseTasksRequest(
            campaign=campaign, annotator=annotator, task_ids=task_ids, request_id=_or_new(request_id)
        )
        return self.call(lambda s: self._stub.ReleaseTasks(request, timeout=s)).released

    def list_annotations(
        self, campaign: str, *, after_sequence: int = 0, item_id: str = "", annotator: str = ""
    ) -> Iterator[scheduler_pb2.Annotation]:
        """Yield what annotators said, in the order it was committed."""
        request = scheduler_pb2.ListAnnotationsRequest(
            campaign=campaign, after_sequence=after_sequence, item_id=item_id, annotator=annotator
        )
        for answer in self.resumed(lambda s: self._stub.ListAnnotations(request, timeout=s)):
            for annotation in answer.annotations:
                request.after_sequence = annotation.sequence
                yield annotation

    def review_labels(
        self,
        campaign: str,
        *,
        max_items: int,
        folds: int = 0,
        show_only: bool = False,
        request_id: str | None = None,
    ) -> scheduler_pb2.ReviewLabelsResponse:
        """Look for labels that are likely wrong, and hand the worst out again unless `show_only`."""
        request = scheduler_pb2.ReviewLabelsRequest(
            campaign=campaign, max_items=max_items, folds=folds, show_only=show_only, request_id=_or_new(request_id)
        )
        return self.call(lambda s: self._stub.ReviewLabels(request, timeout=s), long=True)

    def draw_audit(
        self, campaign: str, *, items: int, request_id: str | None = None
    ) -> scheduler_pb2.DrawAuditResponse:
        """Ask people for labels of `items` unlabelled items in all, drawn at random."""
        request = scheduler_pb2.DrawAuditRequest(campaign=campaign, items=items, request_id=_or_new(request_id))
        return self.call(lambda s: self._stub.DrawAudit(request, timeout=s))

    def get_oracle_report(self, campaign: str) -> scheduler_pb2.GetOracleReportResponse:
        """Return who labelled how much and how well they agree."""
        request = scheduler_pb2.GetOracleReportRequest(campaign=campaign)
        return self.call(lambda s: self._stub.GetOracleReport(request, timeout=s))

    def list_labels(
        self,
        campaign: str,
        *,
        after_sequence: int = 0,
        only_effective: bool = False,
        purpose: scheduler_pb2.LabelPurpose.ValueType = scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED,
    ) -> Iterator[scheduler_pb2.Label]:
        """Yield labels in the order they were committed."""
        request = scheduler_pb2.ListLabelsRequest(
            campaign=campaign, after_sequence=after_sequence, only_effective=only_effective, purpose=purpose
        )
        for answer in self.resumed(lambda s: self._stub.ListLabels(request, timeout=s)):
            for label in answer.labels:
                request.after_sequence = label.sequence
                yield label

    def list_rounds(self, campaign: str) -> list[scheduler_pb2.Round]:
        """Return the rounds, first to last."""
        request = scheduler_pb2.ListRoundsRequest(campaign=campaign)
        return list(self.call(lambda s: self._stub.ListRounds(request, timeout=s)).rounds)

    def watch_campaign(
        self, campaign: str, *, after_sequence: int = 0
    ) -> Iterator[scheduler_pb2.WatchCampaignResponse]:
        """Yield events: first those after `after_sequence` that have happened, then each as it happens.

        It has no deadline, and goes on where it was when the scheduler is back, or another one takes over.
        """
        request = scheduler_pb2.WatchCampaignRequest(campaign=campaign, after_sequence=after_sequence)
        for event in self.resumed(lambda _: self._stub.WatchCampaign(request), timeout_s=math.inf):
            request.after_sequence = event.sequence
            yield event


def _or_new(request_id: str | None) -> str:
    return uuid.uuid4().hex if request_id is None else request_id
