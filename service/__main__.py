"""`convoy-serve` and `python -m service`: serve the bundles in artifacts/, configured by the CONVOY_* variables.

A request goes through api/ (HTTP), codecs/ (bytes to images, within limits), inference/ (admission and batches) and
backends/ (ONNX Runtime). repository/coordinator.py decides which versions are loaded, and repository/registry.py holds
them. workers/ runs all of this in several processes.
"""

import argparse
import os
import sys
from collections.abc import Iterable

from service.version import __version__

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> int:
    """Returns the supervisor's exit status, or 130 if Ctrl-C comes before the supervisor handles signals."""
    # ONNX Runtime reads this when it is imported: its official builds send usage data unless it is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        # These imports are slow, and Ctrl-C must end them quietly.
        from service.settings import settings_table  # noqa: PLC0415 - keeps --help fast
        from service.workers import supervisor  # noqa: PLC0415 - keeps --help fast

        _parse(sys.argv[1:], settings_table())
        return supervisor.main()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"convoy: the package '{error.name}' is not installed; install the extra [service].\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parse(arguments: list[str], settings: Iterable[tuple[str, str, str]]) -> None:
    """Handles --help and --version. Every setting is an environment variable, so there are no other options."""
    table = [f"  {name}={default}\n      {description}" for name, default, description in settings]
    parser = argparse.ArgumentParser(
        prog="convoy-serve",
        description="Serves image classifiers over HTTP.",
        epilog="\n".join(["settings, which are environment variables:", *table]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convoy {__version__}")
    parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
