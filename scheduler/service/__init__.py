"""What the scheduler does for its callers, in the contract's messages and without gRPC."""

from scheduler.service.annotations import AnnotationService
from scheduler.service.audits import AuditService
from scheduler.service.campaigns import CampaignService
from scheduler.service.erasing import ErasureService
from scheduler.service.labels import LabelService
from scheduler.service.oracle_reports import OracleReportService
from scheduler.service.reviews import ReviewService
from scheduler.service.rounds import RoundService
from scheduler.service.tasks import TaskService
from scheduler.service.watch import WatchService

__all__ = [
    "AnnotationService",
    "AuditService",
    "CampaignService",
    "ErasureService",
    "LabelService",
    "OracleReportService",
    "ReviewService",
    "RoundService",
    "TaskService",
    "WatchService",
]
