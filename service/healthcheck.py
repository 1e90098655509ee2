"""`python -m service.healthcheck`: exits with 0 if the service is ready, else with 1 and the reason.

For a container's health check. Each check is a new process, so this module imports nothing but the standard library.
"""

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

DEFAULT_PORT = 8000
TIMEOUT_SECONDS = 2.0


def main(environment: Mapping[str, str]) -> int:
    """Returns the exit status."""
    host, port = address(environment)
    connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{host}:{port} does not answer: {error}.\n")
        return 1
    finally:
        connection.close()
    if response.status != 200:
        sys.stderr.write(f"{host}:{port} is not ready: {response.status} {text}\n")
        return 1
    return 0


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Returns the host and port at which the service listens, as seen from the same container.

    A port that is not a number is not the setting: for a Service named convoy, Kubernetes sets CONVOY_PORT=tcp://...
    """
    port = environment.get("CONVOY_PORT", "")
    return environment.get("CONVOY_HOST") or "127.0.0.1", int(port) if port.isdecimal() else DEFAULT_PORT


if __name__ == "__main__":
    sys.exit(main(os.environ))
