"""What the service says of itself while it runs."""

from typing import Any

from service.settings import Settings


def log_config(settings: Settings) -> dict[str, Any]:
    """One format for our lines and uvicorn's, on stderr, for logging.config.dictConfig."""
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {name: {"level": level} for name in ("service", "uvicorn")},
    }
