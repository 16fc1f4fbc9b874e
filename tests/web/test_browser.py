"""The client in Chromium, against a running service, with a fake camera that shows a real portrait."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from tests.loopback import free_port

pytest.importorskip("fastapi", reason="left out: the extra service")

from ageveil.anonymization import APPROACHES
from ageveil.service.pages import STATIC


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("left out: chromium (make system)")
    return program


def _wait_until_ready(origin: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f"{origin}/readyz")  # noqa: S310 - loopback
            return
        time.sleep(0.2)
    pytest.fail("the service does not start")


@pytest.fixture(scope="module", params=[("veil", "sqlite"), ("mosaic", "postgresql")], ids="-".join)
def service(request, tmp_path_factory):
    """A running service and a party on an origin of its own: what the browser tests read.

    Of the approach that needs a network in the browser, and of one that needs none; on either database.
    """
    approach, database = request.param
    if not (STATIC / "index.html").is_file():
        pytest.skip("left out: the built browser client (make web)")
    if not APPROACHES[approach].usable:
        pytest.skip(f"left out: the weights of the approach {approach} are not installed")
    port, party = free_port(), f"http://localhost:{free_port()}"
    state = tmp_path_factory.mktemp("state")
    environment = os.environ | {
        "AGEVEIL_STATE_DIRECTORY": str(state),
        "AGEVEIL_ADDRESS_PER_MINUTE": "10000",
        "AGEVEIL_DATABASE": "" if database == "sqlite" else request.getfixturevalue("postgres")[2](),
        "AGEVEIL_APPROACH": approach,
    }
    command = [sys.executable, "-m", "ageveil"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "serve", "--port", str(port)], env=environment, **quiet)
    try:
        origin = f"http://127.0.0.1:{port}"
        _wait_until_ready(origin, process)
        add = [*command, "parties", "add", "films", "--audience", party]
        told = subprocess.run(add, env=environment, capture_output=True, text=True, check=True).stdout
        key = next(word for word in told.split() if word.startswith("ageveil_"))
        yield {
            "AGEVEIL_ORIGIN": origin,
            "AGEVEIL_PARTY_ORIGIN": party,
            "AGEVEIL_API_KEY": key,
            "AGEVEIL_APPROACH": approach,
        }
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("part", ["check", "element"])
def test_in_chromium(npm, chromium, service, videos, part):
    environment = os.environ | service | {"AGEVEIL_CHROMIUM": chromium, "AGEVEIL_VIDEOS": str(videos)}
    npm("browser", f"browser/{part}.test.ts", env=environment)
