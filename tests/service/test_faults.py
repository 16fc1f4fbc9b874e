"""Real processes under real faults: kill, races, a database that goes, a full disk, slow clients."""

import base64
import contextlib
import json
import queue
import re
import resource
import signal
import socket
import threading
import time
import zlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx2
import numpy as np
import pytest
import sqlalchemy as sa
from tests.service.conftest import AUDIENCE, frame_of, nonce, text_of

from ageveil.anonymization import anonymize_crop
from ageveil.service import ledger
from ageveil.service.database import reading
from ageveil.service.keys import read_keys
from ageveil.service.parties import add_party
from ageveil.service.service import open_database
from ageveil.service.settings import read_settings


class Caller:
    """A party and its visitor, calling any process of the service."""

    def __init__(self, state, database=""):
        self.settings = read_settings(state_directory=state, database=database)
        self.engine = open_database(self.settings)
        with self.engine.begin() as connection:
            self.headers = {"Authorization": f"Bearer {add_party(connection, 'films', [AUDIENCE])}"}

    def create(self, process, **asked):
        asked = {"minimum_age": 25, "audience": AUDIENCE, "nonce": nonce()} | asked
        return process.http.post("/v1/checks", json=asked, headers=self.headers)

    def post(self, process, check, what, body=None):
        headers = {"Authorization": f"Check {check['secret']}"}
        return process.http.post(f"/v1/checks/{check['id']}/{what}", json=body, headers=headers)

    def redeem(self, process, token, mine):
        return process.http.post(
            "/v1/tokens/redeem", json={"token": token, "nonce": mine}, headers=self.headers
        )

    def verified(self):
        with reading(self.engine) as connection:
            return ledger.verify(connection, read_keys(self.settings.keys_directory))


@pytest.fixture(params=["sqlite", "postgresql"])
def caller(request, tmp_path):
    database = "" if request.param == "sqlite" else request.getfixturevalue("postgres")[2]()
    found = Caller(tmp_path / "state", database)
    yield found
    found.engine.dispose()


@pytest.fixture
def embedded(tmp_path):
    found = Caller(tmp_path / "state")
    yield found
    found.engine.dispose()


def begin(start, caller, **environment):
    """A process, or several that start at the same moment, on a state that has no key yet."""
    url = caller.settings.database.get_secret_value()
    return start(**({"database": url} if url else {}), address_per_minute=100_000, **environment)


def test_two_processes_race_for_a_nonce_a_completion_and_a_redemption(start, caller, frame):
    both = begin(start, caller, public_url="https://age.example", count=2)
    mine = nonce()
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: caller.create(both[n % 2], nonce=mine, tries=1), range(8)))
        assert sorted(answer.status_code for answer in created) == [201] + [409] * 7
        check = next(answer.json() for answer in created if answer.status_code == 201)
        ended = list(
            pool.map(lambda n: caller.post(both[n % 2], check, "faces", {"frames": [frame]}), range(8))
        )
        assert sorted(answer.status_code for answer in ended) == [200] + [409] * 7
        token = next(answer.json()["token"] for answer in ended if answer.status_code == 200)
        # Either process signs with the same key and gives the same token again.
        assert {caller.post(one, check, "end").json()["token"] for one in both} == {token}
        redeemed = list(pool.map(lambda n: caller.redeem(both[n % 2], token, mine), range(8)))
        assert sorted(answer.status_code for answer in redeemed) == [200] + [409] * 7
        others = [caller.create(both[0]).json() for _ in range(16)]
        list(pool.map(lambda pair: caller.post(both[pair[0] % 2], pair[1], "end"), enumerate(others)))
    assert caller.verified().end.sequence == 17  # none lost, none forked


def test_a_process_that_is_killed_in_the_middle_loses_and_admits_nothing(start, caller, frame):
    process = begin(start, caller)
    done = caller.create(process, tries=1).json()
    token = caller.post(process, done, "faces", {"frames": [frame]}).json()["token"]
    check = caller.create(process, tries=2).json()
    stop, answers = threading.Event(), queue.Queue()

    def hammer():
        while not stop.is_set():
            try:
                answers.put(
                    caller.post(process, caller.create(process, tries=5).json(), "faces", {"frames": [frame]})
                )
            except (httpx2.TransportError, RuntimeError):
                return

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        answers.get(timeout=30)
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    again = begin(start, caller, public_url=process.url)
    headers = {"Authorization": f"Check {check['secret']}"}
    view = again.http.get(f"/v1/checks/{check['id']}", headers=headers).json()
    assert (view["state"], view["tries_left"]) == ("open", 2)
    assert caller.post(again, done, "end").json()["token"] == token
    with caller.engine.begin() as connection:
        tried = connection.scalar(sa.text("SELECT count(*) FROM checks WHERE version > 0"))
    assert caller.verified().end.sequence == tried > 8  # an outcome and its record stand or fall together


def test_the_database_goes_and_comes_back(start, postgres, tmp_path, frame):
    up, down, fresh = postgres
    caller = Caller(tmp_path / "state", fresh())
    process = begin(start, caller)
    check = caller.create(process, tries=1).json()
    down()
    try:
        for answer in (caller.create(process), caller.post(process, check, "faces", {"frames": [frame]})):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert process.http.get("/readyz").status_code == 503
        assert process.http.get("/healthz").status_code == 200
    finally:
        up()
    assert process.http.get("/readyz").status_code == 200
    assert caller.post(process, check, "faces", {"frames": [frame]}).status_code == 200
    assert caller.verified().end.sequence == 1
    caller.engine.dispose()


def test_a_full_disk_changes_nothing(start, embedded, tmp_path):
    """Files of the process may grow no further, as on a full disk; then they may again."""
    process = begin(start, embedded)
    check = embedded.create(process).json()
    largest = max(file.stat().st_size for file in (tmp_path / "state").glob("*.sqlite*"))
    pid = process.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    answers = [embedded.create(process) for _ in range(40)]
    refused = [answer.json()["code"] for answer in answers if answer.status_code != 201]
    assert set(refused) == {"unavailable"}
    assert embedded.post(process, check, "end").status_code == 503
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert embedded.post(process, check, "end").status_code == 200
    assert embedded.verified().end.sequence == 1


def raw(process, data, *, seconds=15.0, pause=0.0):
    """Send bytes over a bare connection, with a pause after each; returns the whole answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", process.port), timeout=seconds) as connection:
        try:
            for piece in [data] if not pause else [data[i : i + 1] for i in range(len(data))]:
                connection.sendall(piece)
                time.sleep(pause)
            connection.shutdown(socket.SHUT_WR) if not pause else None
            while chunk := connection.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer


def test_slow_truncated_and_broken_requests_end(start, embedded):
    process = begin(start, embedded, body_seconds=1)
    head = b"POST /v1/checks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as slow:
        slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in slow.recv(65536)
    assert raw(process, b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"a" * 60, pause=0.05) == b""  # slow header
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as silent:
        assert silent.recv(1) == b""
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as kept:
        for pause in (3, 0):  # one that is kept between requests may wait, and is closed on half a header
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"alive"}'):
                answer += kept.recv(65536)
            time.sleep(pause)
        kept.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert kept.recv(1) == b""
    assert time.monotonic() - started < 20
    assert b" 201 " not in raw(process, head + b"Content-Length: 100\r\n\r\n{}")  # truncated
    assert b" 400 " in raw(process, b"\x16\x03\x01 no http at all\r\n\r\n")
    assert b" 413 " in raw(process, head + b"Content-Length: 99999999\r\n\r\n")
    assert b" 400 " in raw(process, head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}")  # smuggling
    assert b" 400 " in raw(process, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n")
    assert process.http.get("/healthz").status_code == 200


def test_a_client_that_does_not_read_is_left(start, embedded):
    process = begin(start, embedded, body_seconds=1)
    check = embedded.create(process).json()
    view = process.http.get(
        f"/v1/checks/{check['id']}", headers={"Authorization": f"Check {check['secret']}"}
    ).json()
    place = view["model"]["url"]
    size = int(process.http.get(place).headers["content-length"])
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", process.port))
        stalled.sendall(f"GET {place} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        held = Path(f"/proc/{process.process.pid}/fd")
        before, deadline = len(list(held.iterdir())), time.monotonic() + 20
        while len(list(held.iterdir())) >= before and time.monotonic() < deadline:
            time.sleep(0.1)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := stalled.recv(65536):
                read += len(chunk)
    assert read < size


@pytest.mark.parametrize(
    ("proxies", "wanted"), [("", [401, 401, 429, 429]), ("127.0.0.1", [401, 401, 429, 401])]
)
def test_only_a_trusted_proxy_says_whose_request_it_is(start, proxies, wanted):
    """What stands left of the proxy's own entry is the visitor's invention."""
    process = start(address_per_minute=2, trusted_proxies=proxies)
    told = ["192.0.2.1", "203.0.113.5, 192.0.2.1", "127.0.0.1, 192.0.2.1", "192.0.2.2"]
    answers = [
        process.http.get("/v1/checks/x", headers={"X-Forwarded-For": one, "Authorization": "Check x"})
        for one in told
    ]
    assert [answer.status_code for answer in answers] == wanted


def test_a_crash_leaves_no_memory_on_the_disk(start):
    limits = Path(f"/proc/{start().process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_requests_that_have_begun_may_end(start, embedded, frame):
    process = begin(start, embedded)
    checks = [embedded.create(process).json() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        begun = [pool.submit(embedded.post, process, one, "faces", {"frames": [frame]}) for one in checks]
        wait(begun, return_when=FIRST_COMPLETED)
        process.process.terminate()
        codes = []
        for future in begun:
            try:
                codes.append(future.result().status_code)
            except httpx2.TransportError:
                codes.append(None)  # came after the end had begun
    assert process.process.wait(30) == 0
    assert codes.count(200) == embedded.verified().end.sequence > 0


def windows(pixels):
    """Runs of bytes that a picture would leave wherever it was written down, raw, packed or as base64."""
    raw, packed = pixels.tobytes(), zlib.compress(pixels.tobytes())
    found = []
    for data in (raw, base64.b64encode(raw), packed, base64.b64encode(packed)):
        found += [data[i : i + 24] for i in range(6000, len(data), 15_000)]
    return found


def test_nothing_of_a_face_lies_on_the_disk_or_in_the_logs(start, caller, crop, frame, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = begin(start, caller)
    mine = nonce()
    check = caller.create(process, nonce=mine, tries=2).json()
    bare = frame | {"pixels": text_of(crop.pixels)}
    assert caller.post(process, check, "faces", {"frames": [bare]}).json()["code"] == "not_anonymized"
    assert caller.post(process, check, "faces", {"frames": [frame | {"receipt": {}}]}).status_code == 422
    ended = caller.post(process, check, "faces", {"frames": [frame]}).json()
    token = caller.post(process, check, "end").json()["token"]
    caller.redeem(process, token, mine)
    process.http.post("/v1/checks", content=b"{" + bare["pixels"].encode()[:9000], headers=caller.headers)
    assert ended["outcome"]
    process.end()
    sent = np.frombuffer(zlib.decompress(base64.b64decode(frame["pixels"])), np.uint8)
    secret_texts = [check["secret"], token, token.split(".")[2], caller.headers["Authorization"][7:]]
    needles = windows(crop.pixels) + windows(sent)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"log0"}
    for file in files:
        data = file.read_bytes()
        assert not any(needle in data for needle in needles), file
        hidden = secret_texts if not file.name.startswith("log") else [*secret_texts, check["id"], mine]
        assert not any(one.encode() in data for one in hidden), file
    assert not list(temporary.iterdir())
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert "/v1/checks/{check_id}/faces" in {line["route"] for line in requests}
    assert {*requests[0]} == {"time", "level", "event", "method", "route", "status", "ms"}
    assert "127.0.0.1" not in json.dumps(requests)


def test_serving_embeds_a_demo_and_prints_where(start, frame):
    process = start()
    printed = process.log.read_text()
    key = re.search(r"API key \(shown this once\): (\S+)", printed)[1]
    assert f"try it: {process.url}/demo" in printed
    page = process.http.get("/demo")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in re.findall(r'(?:href|src)="(/demo/[^"]+)"', page.text):
        assert process.http.get(name).status_code == 200
    begun = process.http.post("/demo/checks", json={"minimum_age": 25, "mode": "anonymized"}).json()
    place, secret = begun["url"].removeprefix(process.url).split("#")
    headers = {"Authorization": f"Check {secret}"}
    place = place.replace("/check/", "/v1/checks/")
    process.http.post(f"{place}/faces", json={"frames": [frame]}, headers=headers)
    token = process.http.post(f"{place}/end", headers=headers).json()["token"]
    claims = process.http.post("/demo/redeem", json={"token": token, "nonce": begun["nonce"]}).json()
    assert (claims["aud"], claims["minimum_age"], claims["computed"]) == (process.url, 25, "server")
    asked = {"minimum_age": 18, "audience": process.url, "nonce": nonce()}
    made = process.http.post("/v1/checks", json=asked, headers={"Authorization": f"Bearer {key}"})
    assert made.status_code == 201
    assert process.end() == 0
    assert "shown this once" not in start().log.read_text()


def test_a_server_that_cannot_start_says_why(tmp_path, run, monkeypatch):
    monkeypatch.setenv("AGEVEIL_STATE_DIRECTORY", str(tmp_path))

    def told(*words, **environment):
        with monkeypatch.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, value)
            done = run("serve", *words)
        assert done.out == ""
        (line,) = done.err.splitlines()
        return done.code, line

    code, line = told("--database", "postgresql://someone:secret@127.0.0.1:1/none")
    assert (code, "secret" in line) == (13, False)
    assert told("--database", "mysql://x") == (
        2,
        "ageveil: expected a database URL of PostgreSQL or of an SQLite file",
    )
    assert told(AGEVEIL_FRAMES="many")[1].startswith("ageveil: settings: frames:")
    assert told(AGEVEIL_APPROACH="original")[0] == 2
    assert told(AGEVEIL_PUBLIC_URL="https://age.example; script-src *")[0] == 2
    assert told("--config", str(tmp_path / "none.toml"))[0] == 2


def test_the_operators_verbs(tmp_path, run, monkeypatch):
    monkeypatch.setenv("AGEVEIL_STATE_DIRECTORY", str(tmp_path / "state"))
    assert run("parties", "add", "films", "--audience", AUDIENCE).out.startswith("ageveil_")
    assert run("parties", "list").out == f"films {AUDIENCE}\n"
    assert run("parties", "add", "films", "--audience", AUDIENCE).code == 2
    assert run("parties", "add", "Films", "--audience", AUDIENCE).code == 2
    assert run("parties", "add", "other", "--audience", "https://films.example/").code == 2
    assert run("parties", "remove", "films").code == 0
    assert run("parties", "remove", "films").code == 2
    assert run("ledger", "verify").code == 13  # no key yet
    first, second = run("keys", "rotate").out.strip(), run("keys", "rotate").out.strip()
    listed = run("keys", "list").out
    assert {first, second} == set(re.findall(r"(?m)^\S+", listed))
    assert listed.count("signs") == 1
    assert "0 records" in run("ledger", "verify").out
    assert run("ledger", "verify", "--json").json == {"first": 1, "last": 0, "hash": "0" * 64}
    assert run("ledger", "verify", "--known", "x").code == 2
    assert run("ledger", "expire", "--older-than", "30").out == "0 records deleted\n"


def test_settings_come_from_options_environment_and_file(tmp_path, monkeypatch):
    file = tmp_path / "ageveil.toml"
    file.write_text("port = 1\nframes = 2\nqueue = 3\n")
    monkeypatch.setenv("AGEVEIL_PORT", "4")
    monkeypatch.setenv("AGEVEIL_FRAMES", "5")
    found = read_settings(file, port=6)
    assert (found.port, found.frames, found.queue) == (6, 5, 3)
    file.write_text("unknown = 1")
    with pytest.raises(ValueError, match="settings: unknown"):
        read_settings(file)
    file.write_text("port =")
    with pytest.raises(ValueError, match="cannot read the settings"):
        read_settings(file)


def test_masked_faces_are_served_where_the_operator_says_so(one, crop, tmp_path):
    from tests.service.conftest import Running

    chosen = one.settings.model_copy(
        update={"approach": "mask", "frames": 2, "state_directory": tmp_path / "b"}
    )
    found = Running(chosen)
    with found.http:
        check = found.create(minimum_age=25).json()
        assert (found.view(check).json()["approach"], found.view(check).json()["frames"]) == ("mask", 2)
        masked = frame_of(anonymize_crop(crop, "mask"))
        assert found.post(check, "faces", {"frames": [masked, masked]}).status_code == 200
        assert found.post(check, "faces", {"frames": [masked] * 3}).json()["code"] in {
            "frames_invalid", "body_too_large",
        }  # fmt: skip
