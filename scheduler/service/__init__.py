"""What the scheduler does for its callers, in the contract's messages and without gRPC."""

from scheduler.service.campaigns import CampaignService
from scheduler.service.labels import LabelService
from scheduler.service.rounds import RoundService
from scheduler.service.tasks import TaskService
from scheduler.service.watch import WatchService

__all__ = ["CampaignService", "LabelService", "RoundService", "TaskService", "WatchService"]
