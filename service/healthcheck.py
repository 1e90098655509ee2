"""`python -m service.healthcheck`: exits with 0 if the service is ready, else with 1 and the reason.

For a container's health check. Each check is a new process, so this module imports nothing but the standard library.
"""

import os
import socket
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

DEFAULT_PORT = 8000
TIMEOUT_SECONDS = 2.0


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket, whose path is the host."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self.host)


def main(environment: Mapping[str, str]) -> int:
    """Returns the exit status."""
    name, connection = connection_to(environment)
    try:
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{name} does not answer: {error}.\n")
        return 1
    finally:
        connection.close()
    if response.status != 200:
        sys.stderr.write(f"{name} is not ready: {response.status} {text}\n")
        return 1
    return 0


def connection_to(environment: Mapping[str, str]) -> tuple[str, HTTPConnection]:
    """Returns the address at which the service listens, as seen from the same container, and a connection to it."""
    if path := environment.get("CONVOY_UDS"):
        return path, UnixConnection(path)
    host, port = address(environment)
    return f"{host}:{port}", HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Returns the host and port.

    A port that is not a number is not the setting: for a Service named convoy, Kubernetes sets CONVOY_PORT=tcp://...
    """
    port = environment.get("CONVOY_PORT", "")
    return environment.get("CONVOY_HOST") or "127.0.0.1", int(port) if port.isdecimal() else DEFAULT_PORT


if __name__ == "__main__":
    sys.exit(main(os.environ))
