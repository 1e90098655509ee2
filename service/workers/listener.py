"""The listening socket, which all workers share: of TCP, or a Unix socket.

It does not listen yet: until models are loaded, connections are refused and do not wait.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import StartError
from service.settings import Settings

_OTHERS = 0o117  # the bits that the mode of a Unix socket lacks: only the owner and the group may connect


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """Yields the socket. Raises StartError."""
    if settings.uds is None:
        with bind(settings.host, settings.port) as listener:
            yield listener
        return
    with bind_unix(settings.uds) as listener:
        file = _identity(settings.uds)
        try:
            yield listener
        finally:
            with suppress(OSError):
                if file == _identity(settings.uds):  # else a new service has replaced it
                    settings.uds.unlink()


def bind(host: str, port: int) -> socket.socket:
    """Returns a TCP socket. Raises StartError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"CONVOY_HOST={host} is not valid: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"CONVOY_HOST={host} is not an address of this machine.") from error
        raise StartError(
            f"Port {port} of {host} cannot be used: {error.strerror}; change CONVOY_PORT, or stop the other program."
        ) from error
    return listener


def bind_unix(path: Path) -> socket.socket:
    """Returns a Unix socket, after removing one that a killed service has left. Raises StartError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(_OTHERS)
    try:
        _remove_stale(path)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise StartError(
            f"CONVOY_UDS={path} cannot be used: {error.strerror or error}; choose a path in a folder that the service "
            "may write to."
        ) from error
    except StartError:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


def _identity(path: Path) -> tuple[int, int, int]:
    """Returns what tells a file from its successor, which may get the same inode number. Raises OSError."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _remove_stale(path: Path) -> None:
    """Raises StartError if the path is not an unused socket, and OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"CONVOY_UDS={path} exists and is not a socket; choose another path, or remove it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise StartError(f"Another program listens on CONVOY_UDS={path}; choose another path, or stop the program.")


def address(listener: socket.socket) -> str:
    """Returns the address of the service, for the log."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
