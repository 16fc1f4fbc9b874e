"""A service on SQLite and one on PostgreSQL, real processes, and anonymized faces of the portraits."""

import base64
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import httpx2
import pytest

pytest.importorskip("fastapi", reason="left out: the extra service")

from starlette.testclient import TestClient
from tests.loopback import free_port

from ageveil.anonymization import anonymize_crop
from ageveil.image import read_image
from ageveil.pipeline import Pipeline
from ageveil.service.app import guarded
from ageveil.service.parties import add_party
from ageveil.service.service import open_service
from ageveil.service.settings import read_settings

AUDIENCE = "https://films.example"


def nonce():
    return secrets.token_urlsafe(16)


def frame_of(face):
    """A face as a browser sends it."""
    return {"pixels": text_of(face.pixels), "receipt": face.receipt.to_json()}


def text_of(pixels):
    """Pixels as a browser sends them."""
    return base64.b64encode(zlib.compress(pixels.tobytes())).decode()


@pytest.fixture(scope="session")
def crop(astronaut):
    """The bare canonical crop of a portrait."""
    return Pipeline("mosaic").align_viewer(read_image(astronaut))[1]


@pytest.fixture(scope="session")
def frame(crop):
    """The portrait under a mosaic, as a browser sends it."""
    return frame_of(anonymize_crop(crop, "mosaic"))


@pytest.fixture(autouse=True)
def mosaics(monkeypatch):
    """Services of mosaics, in which there is most to inspect; the default is tried where it is asked for."""
    monkeypatch.setenv("AGEVEIL_APPROACH", "mosaic")


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path):
    """Settings of a fresh state, once on each database."""
    database = "" if request.param == "sqlite" else request.getfixturevalue("postgres")[2]()
    return read_settings(
        state_directory=tmp_path / "state", database=database, demo=False, key_delay_seconds=0
    )


class Running:
    """A service with its HTTP client, a party's key, and a clock that a test can move."""

    def __init__(self, settings):
        self.settings, self.ahead = settings, 0.0
        self.service = replace(open_service(settings), clock=lambda: time.time() + self.ahead)
        with self.service.engine.begin() as connection:
            self.key = add_party(connection, "films", [AUDIENCE, "https://shop.example"])
        self.http = TestClient(guarded(self.service), raise_server_exceptions=False)

    @property
    def party(self):
        return {"Authorization": f"Bearer {self.key}"}

    def create(self, **asked):
        asked = {"minimum_age": 18, "audience": AUDIENCE, "nonce": nonce()} | asked
        return self.http.post("/v1/checks", json=asked, headers=self.party)

    def post(self, check, what, body=None):
        headers = {"Authorization": f"Check {check['secret']}"}
        return self.http.post(f"/v1/checks/{check['id']}/{what}", json=body, headers=headers)

    def view(self, check):
        headers = {"Authorization": f"Check {check['secret']}"}
        return self.http.get(f"/v1/checks/{check['id']}", headers=headers)

    def redeem(self, token, nonce):
        return self.http.post("/v1/tokens/redeem", json={"token": token, "nonce": nonce}, headers=self.party)


@pytest.fixture
def running(settings):
    found = Running(settings)
    with found.http:
        yield found


@pytest.fixture
def one(tmp_path):
    """A service on SQLite alone, for what no database has a part in."""
    found = Running(read_settings(state_directory=tmp_path / "state", demo=False, key_delay_seconds=0))
    with found.http:
        yield found


class Process:
    """`ageveil serve` as a process of its own."""

    def __init__(self, state, log, **environment):
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {f"AGEVEIL_{name.upper()}": str(value) for name, value in environment.items()}
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ageveil", "serve", "--port", str(self.port)],
                stdout=sink, stderr=sink,
                env={**os.environ, "AGEVEIL_STATE_DIRECTORY": str(state), **environment},
            )  # fmt: skip
        self.http = httpx2.Client(base_url=self.url, timeout=30)

    def wait(self):
        """Until it is ready."""
        for _ in range(600):
            with contextlib.suppress(httpx2.TransportError):
                if self.http.get("/healthz").status_code == 200:
                    return self
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.http.close()
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path):
    """Start processes on one state directory; all are ended after the test."""
    begun = []

    def call(count=1, **environment):
        first = len(begun)
        for number in range(first, first + count):
            begun.append(Process(tmp_path / "state", tmp_path / f"log{number}", **environment))
        found = [process.wait() for process in begun[first:]]
        return found if count > 1 else found[0]

    yield call
    for process in begun:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)
        process.http.close()
