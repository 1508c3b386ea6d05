"""Structured logs on stderr: a constant message, and fields."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from sealpool.runtime.settings import ServiceSettings

Logger = FilteringBoundLogger


def make_logger(settings: ServiceSettings, service: str, *, stream: TextIO | None = None) -> Logger:
    """Return a logger that writes one line an event to `stream` (stderr), each with the service's name."""
    renderer: Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
    ).bind(service=service)
    return logger
