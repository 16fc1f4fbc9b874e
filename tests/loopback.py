"""Servers that tests start on loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server on loopback: (start, stop, URL of its emptied database); for one test at a time."""
    sa = pytest.importorskip("sqlalchemy", reason="left out: the extra service")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("left out: PostgreSQL (Debian's package postgresql) is not installed")
    program = folders[-1]
    # Not in pytest's folder, which is closed to all but its owner: the server refuses to run as root.
    base = Path(tempfile.mkdtemp(prefix="ageveil-postgres-"))
    user = {}
    if os.getuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(base, "nobody", "nogroup")
    data, port = base / "data", free_port()
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": base, **user}
    subprocess.run([program / "initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync"], **quiet)  # noqa: PLW1510
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={base} -c fsync=off"

    def control(verb):
        command = [program / "pg_ctl", "-D", data, "-w", "-m", "immediate", "-l", base / "log", verb]
        subprocess.run(command if verb == "stop" else [*command, "-o", options], **quiet)  # noqa: PLW1510

    url = f"postgresql://tester@127.0.0.1:{port}/postgres"

    def fresh():
        """The database emptied: making and deleting one for each test takes seconds on a slow disk."""
        admin = sa.create_engine(url.replace(":", "+psycopg:", 1), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for statement in (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
                "DROP SCHEMA public CASCADE",
                "CREATE SCHEMA public",
            ):
                connection.execute(sa.text(statement))
        admin.dispose()
        return url

    control("start")
    yield lambda: control("start"), lambda: control("stop"), fresh
    control("stop")
    shutil.rmtree(base)
