"""GET /metrics: figures for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.telemetry.metrics import Telemetry

_TEXT = {"schema": {"type": "string"}}


def router(telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus's text format, or OpenMetrics where Accept names it.",
                "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
            }
        },
    )
    def metrics(request: Request) -> Response:
        text, media_type = telemetry.render(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    return routes
