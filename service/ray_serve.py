"""The service on Ray Serve: each replica is one worker, and Serve balances and scales the replicas over a cluster.

    serve run service.ray_serve:build max_replicas=8        (make serve-ray)

Every replica follows the artifacts folder itself, so all machines must see it under the same path. If a replica dies,
Serve's proxy answers 500. With `middlewares` it answers 503, which clients may retry. Set this on each machine before
`ray start`:

    export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray_serve:middlewares
"""

from ray import serve
from ray.serve.config import AutoscalingConfig
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.base import Frozen
from schemas.problem import ProblemCode
from service.api.app import create_app
from service.api.problems import error_response
from service.settings import Device, read_settings

_LOST = "The replica that worked on this request has ended; send the request again."
_RETRY = {"Retry-After": "1"}
_ONGOING = 16  # requests of a replica, on average, above which Serve adds one


class Options(Frozen):
    """The arguments of `serve run`; the CONVOY_* variables configure the replicas."""

    min_replicas: int = 1
    max_replicas: int = 4


def build(options: Options) -> serve.Application:
    """Returns the application for Serve. Raises SettingsError."""
    settings = read_settings()

    def app() -> ASGIApp:
        return create_app(settings)

    deployment = serve.deployment(
        serve.ingress(app)(),
        name="convoy",
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=_ONGOING,
        ),
        max_ongoing_requests=100 * _ONGOING,  # the service's own limits refuse requests, with Retry-After
        graceful_shutdown_timeout_s=settings.drain_seconds,
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": int(settings.device is Device.CUDA),
            "runtime_env": {"env_vars": {"ORT_DISABLE_TELEMETRY": "1"}},
        },
    )
    return deployment.bind()


def middlewares() -> list[Middleware]:
    return [Middleware(LostReplicas)]


class LostReplicas:
    """In Serve's proxy: answers 503 if Serve sends no response, as when a replica dies. The server would answer 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self._app(scope, receive, send_and_note)
        if scope["type"] == "http" and not started:
            response = error_response(scope["path"], 503, ProblemCode.NOT_READY, _LOST, headers=_RETRY)
            await response(scope, receive, send)
