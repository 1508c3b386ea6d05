"""Settings as a service would read them in its container."""

import os

import pytest

from index_server.settings import IndexServerSettings
from learner.settings import LearnerSettings
from scheduler.settings import SchedulerSettings

CLASSES = {"index-server": IndexServerSettings, "learner": LearnerSettings, "scheduler": SchedulerSettings}


def settings_of(rendered, name):
    """Return the settings that a service takes from its container's environment."""
    environment = rendered.environment(rendered.service_pods(name))
    with pytest.MonkeyPatch.context() as patch:
        for variable in [variable for variable in os.environ if variable.startswith("SEALPOOL_")]:
            patch.delenv(variable)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        return CLASSES[name]()
