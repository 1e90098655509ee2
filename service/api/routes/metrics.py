"""GET /metrics for Prometheus."""

import asyncio

from fastapi import APIRouter, Request, Response

from service.api.problems import problems
from service.telemetry.exposition import render
from service.telemetry.metrics import Telemetry

_TEXT = {"schema": {"type": "string"}}


def router(telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus's text format, or OpenMetrics if Accept names it.",
                "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
            },
            **problems(503),
        },
    )
    async def metrics(request: Request) -> Response:
        totals = await telemetry.totals()
        text, media_type = await asyncio.to_thread(render, totals, request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    return routes
