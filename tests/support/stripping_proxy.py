"""A proxy that removes a prefix from paths, as a gateway that serves several applications under one name does."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import httpx

from tests.support.http_server import QuietHandler, http_server

_NOT_FORWARDED = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}


@contextmanager
def stripping_proxy(target: str, prefix: str) -> Iterator[str]:
    """Yields the proxy's URL, whose paths below the prefix are those of the target. It has no other paths."""

    class Handler(QuietHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._forward()

        def do_POST(self) -> None:
            self._forward()

        def _forward(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent = {"host", "content-length"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in sent}
            response = httpx.request(
                self.command, target + self.path.removeprefix(prefix), headers=headers, content=body
            )
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name not in _NOT_FORWARDED:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has left
                self.wfile.write(response.content)

    with http_server(Handler) as url:
        yield url + prefix
