"""A client of Convoy, a service that classifies images.

from convoy_client import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.predict("cat.jpg").predictions[0].label)
"""

from convoy_client.client import AsyncClient, Client
from convoy_client.errors import (
    ConvoyError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidInputError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRefusedError,
    ServiceFailedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from convoy_client.options import Retries
from convoy_client.results import (
    EvaluationReport,
    Explanation,
    ItemError,
    MapExplanation,
    ModelList,
    ModelSummary,
    Prediction,
    Predictions,
    Problem,
)
from convoy_client.version import __version__

__all__ = [
    "AsyncClient",
    "Client",
    "ConvoyError",
    "DeadlineExceededError",
    "EvaluationReport",
    "Explanation",
    "InvalidImageError",
    "InvalidInputError",
    "InvalidRequestError",
    "ItemError",
    "MapExplanation",
    "ModelList",
    "ModelNotFoundError",
    "ModelRefusedError",
    "ModelSummary",
    "Prediction",
    "Predictions",
    "Problem",
    "Retries",
    "ServiceFailedError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "__version__",
]
