"""`python -m benchmarks.leaky_service` runs the service with a deliberate leak: the control of the soak test."""

import uvicorn

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.api.app import create_app, onnx_runtime
from service.backends.base import Runtime, Session
from service.settings import read_settings

LEAK_BYTES = 1024  # per batch


class LeakySession:
    """Wraps a session and leaks memory on each batch."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._leaked: list[bytearray] = []
        self.provider = session.provider
        self.inputs, self.outputs = session.inputs, session.outputs
        self.warm_batches = session.warm_batches

    def run(self, images: Pixels) -> FloatArray:
        self._leaked.append(bytearray(LEAK_BYTES))
        return self._session.run(images)

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        return self._session.explain(images)


class LeakyRuntime:
    wide = None

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.provider, self.reason = runtime.provider, runtime.reason

    def open(self, model: bytes) -> Session:
        return LeakySession(self._runtime.open(model))


if __name__ == "__main__":
    settings = read_settings()
    app = create_app(settings, LeakyRuntime(onnx_runtime(settings)))
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
