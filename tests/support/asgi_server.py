"""The application behind a real listener, in a thread of the test process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

START_SECONDS = 20


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), START_SECONDS)


@contextmanager
def listening(app: FastAPI, **options: Any) -> Iterator[Address]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", log_config=None, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive(), "the application did not start"
            assert time.monotonic() < deadline, "the application did not start in time"
            time.sleep(0.01)
        yield Address(*listener.getsockname())
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def request_bytes(path: str, body: bytes, **headers: str) -> bytes:
    """Returns the bytes of a POST request."""
    lines = {"host": "test", "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode() + b"\r\n" + body


def answer_on(connection: socket.socket) -> bytes:
    """Returns the bytes that arrive until the service closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received
