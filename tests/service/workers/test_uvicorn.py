"""The undocumented parts of uvicorn that service/workers uses, which any minor version may change."""

import inspect

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

USED = {
    HttpToolsProtocol: {
        *("app", "app_state", "cycle", "expect_100_continue", "headers", "loop", "parser", "pipeline", "scope"),
        *("timeout_keep_alive", "timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "url"),
        *("_unset_keepalive_if_required", "on_body", "on_header", "on_headers_complete", "on_message_begin"),
        *("on_message_complete", "on_response_complete", "shutdown"),
    },
    RequestResponseCycle: {
        *("disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started", "scope"),
        *("transport", "waiting_for_100_continue"),
    },
    ServerState: {"connections", "tasks"},
    uvicorn.Server: {
        *("capture_signals", "config", "lifespan", "server_state", "servers", "should_exit", "shutdown", "startup"),
    },
    uvicorn.Config: {"http_protocol_class", "lifespan_class", "timeout_graceful_shutdown"},
}


def test_the_tested_minor_version_is_installed() -> None:
    assert uvicorn.__version__.startswith("0.54.")


@pytest.mark.parametrize("cls", USED, ids=lambda cls: cls.__name__)
def test_uvicorn_has_what_the_workers_use(cls: type) -> None:
    functions = [function for _, function in inspect.getmembers(cls, inspect.isfunction)]
    known = set(dir(cls)).union(*(function.__code__.co_names for function in functions))
    assert USED[cls] <= known
