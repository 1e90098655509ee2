"""A PostgreSQL server for a test, on a socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Returns the folder with initdb and pg_ctl; Debian does not put it on the PATH."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Yields the URL of an empty database. folder contains the programs."""
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory() as place:  # not below pytest's folder, which is closed to other users
        if user:
            shutil.chown(place, user)
        data = Path(place, "data")

        def run(program: str, *arguments: str | Path) -> None:
            command = [folder / program, "-D", data, *arguments]
            subprocess.run(command, cwd=place, user=user, check=True, stdout=subprocess.DEVNULL, timeout=120)

        run("initdb", "-U", "convoy", "-A", "trust", "--no-sync")
        run("pg_ctl", "-w", "-l", data / "log", "-o", f"-k {place} -c listen_addresses=", "start")
        try:
            yield f"postgresql+psycopg://convoy@/postgres?host={place}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
