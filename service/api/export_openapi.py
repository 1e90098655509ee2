"""`python -m service.api.export_openapi [--check] PATH` writes the schema of /openapi.json, or checks that file."""

import argparse
import json
import sys
from pathlib import Path

from service.api.app import create_app
from service.backends.base import Session
from service.backends.fake import FakeRuntime
from service.settings import Settings


def render() -> str:
    """Returns the schema. It depends neither on the environment nor on the models."""

    def no_session(_: bytes) -> Session:
        raise NotImplementedError

    app = create_app(Settings.model_construct(), FakeRuntime(no_session))
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m service.api.export_openapi", description="Writes openapi.json.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is out of date")
    options = parser.parse_args(arguments)
    text = render()
    if not options.check:
        options.path.write_text(text, encoding="utf-8")
    elif not options.path.is_file() or options.path.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{options.path} is out of date; run make openapi.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
