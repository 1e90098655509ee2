"""`python -m benchmarks.leaky_service` runs the service with a deliberate leak: the control of the soak test."""

import uvicorn

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.api.app import create_app, onnx_runtime
from service.backends.base import Session
from service.backends.fake import FakeRuntime
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


if __name__ == "__main__":
    settings = read_settings()
    runtime = onnx_runtime(settings)
    app = create_app(settings, FakeRuntime(lambda model: LeakySession(runtime.open(model))))
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
