"""Structured logs on stderr: a constant message, and fields."""

import logging
import sys
from contextlib import ExitStack
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tracing import log_fields

Logger = FilteringBoundLogger


def make_logger(settings: ServiceSettings, service: str, *, stream: TextIO | None = None) -> Logger:
    """Return a logger that writes one line an event to `stream` (stderr), each with the service's name.

    A line that is written on behalf of a call has its `request_id`, and with `trace_endpoint` its `trace_id` and
    `span_id`, in whatever thread.
    """
    fields = log_fields(settings)

    def add_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, **fields()}

    renderer: Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        processors=[
            add_ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
    ).bind(service=service)
    return logger


class _LogBridge(logging.Handler):
    """Says in our log what a library says in Python's."""

    def __init__(self, name: str, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._name = name
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._log.log(record.levelno, self._name, detail=record.getMessage(), exc_info=record.exc_info)


def library_log(name: str, log: Logger) -> ExitStack:
    """Send the warnings and errors of the Python logger `name` to `log`, until what is returned is closed."""
    logger, bridge = logging.getLogger(name), _LogBridge(name, log)
    until = ExitStack()
    until.callback(logger.setLevel, logger.level)
    until.callback(setattr, logger, "propagate", logger.propagate)
    until.callback(logger.removeHandler, bridge)
    logger.addHandler(bridge)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    return until
