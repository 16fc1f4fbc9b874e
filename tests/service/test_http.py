"""What stands before the routes: limits, headers, files, metrics, logs, and the OpenAPI document."""

import json
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import schemathesis
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from tests.service.conftest import AUDIENCE, Running, nonce
from tests.service.test_life import code

from ageveil.service import pages
from ageveil.service.app import make_app, openapi_document
from ageveil.service.database import metadata
from ageveil.service.guard import SMALL_BODY, Guard
from ageveil.service.logs import JsonFormatter
from ageveil.service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
CONFORM = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "wanted"),
    [
        (JSON, b"{", "request_invalid"),
        (JSON, b"[]", "request_invalid"),
        (JSON, b"", "request_invalid"),
        (JSON, b" " * SMALL_BODY, "request_invalid"),
        (JSON, b" " * (SMALL_BODY + 1), "body_too_large"),
        ({"Content-Type": "text/plain"}, b"{}", "content_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", "content_type"),
        ({}, b"{}", "content_type"),
        (JSON | {"Content-Encoding": "gzip"}, b"\x1f\x8b", "content_encoding"),
        (JSON | {"Content-Encoding": "identity"}, b"{}", "request_invalid"),
        (JSON | {"Content-Length": "x"}, b"{}", "length_invalid"),
        (JSON | {"Content-Length": "9" * 30}, b"{}", "body_too_large"),
    ],
)
def test_bodies_that_are_not_welcome(one, headers, body, wanted):
    answer = one.http.post("/v1/checks", content=body, headers=headers | one.party)
    assert code(answer) == wanted


def test_a_body_without_a_length_is_counted(one):
    chunks = (b" " * 4096 for _ in range(5))
    assert code(one.http.post("/v1/checks", content=chunks, headers=JSON | one.party)) == "body_too_large"


def test_json_that_nests_deep_is_refused(one):
    body = b"[" * (SMALL_BODY // 2) + b"]" * (SMALL_BODY // 2)
    answer = one.http.post("/v1/checks", content=body, headers=JSON | one.party)
    assert 400 <= answer.status_code < 500


def test_thousands_of_unknown_fields_are_one_error(one):
    fields = {f"f{number}": 0 for number in range(15_000)}
    answer = one.post(one.create().json(), "faces", fields)
    assert code(answer) == "request_invalid"
    assert "at most 32 fields" in answer.json()["detail"]


def test_whoever_may_not_ask_is_counted_before_the_body_is_looked_at(one, tmp_path):
    changes = {"address_per_minute": 3, "state_directory": tmp_path / "second"}
    found = Running(one.settings.model_copy(update=changes))
    with found.http:
        check = found.create().json()
        sent = [found.post(check | {"secret": "x"}, "faces", {"no": "frames"}) for _ in range(4)]
    assert [code(answer) for answer in sent] == ["credentials_invalid"] * 3 + ["too_many_requests"]


def test_an_id_that_no_database_holds_is_not_there(running):
    assert code(running.view({"id": "%00", "secret": "x"})) == "credentials_invalid"
    appeal = {"kind": "guardian", "result": "granted"}
    assert (
        code(running.http.post("/v1/checks/%00/appeals", json=appeal, headers=running.party)) == "not_found"
    )


def test_the_answer_to_a_wrong_field_names_it_and_not_its_value(one):
    answer = one.create(nonce="short secret")
    assert "nonce" in answer.json()["detail"]
    assert "short secret" not in answer.text


@pytest.fixture
def client(one, tmp_path, monkeypatch):
    """A service with a client of its own making: what the build lays down, in small."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<title>page</title>")
    (static / "element.js").write_text("export {}")
    (static / "assets" / "a1.js").write_text("export {}")
    (tmp_path / "outside.txt").write_text("outside")
    (static / "link.txt").symlink_to(tmp_path / "outside.txt")
    monkeypatch.setattr(pages, "STATIC", static)
    found = Running(one.settings.model_copy(update={"state_directory": tmp_path / "second"}))
    with found.http:
        yield found


def test_the_page_may_be_embedded_by_the_checks_audience_alone(client):
    check = client.create().json()
    page = client.http.get(f"/check/{check['id']}")
    assert page.text == "<title>page</title>"
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["frame-ancestors"] == f"'self' {AUDIENCE}"
    assert policy["default-src"] == "'none'"
    assert not re.search(
        r"unsafe-inline|'unsafe-eval'|https?:", page.headers["content-security-policy"].split("frame-")[0]
    )
    assert "camera=(self)" in page.headers["permissions-policy"]
    unknown = client.http.get("/check/unknown")
    assert unknown.status_code == 404
    assert "frame-ancestors 'none'" in unknown.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in client.http.get("/index.html").headers["content-security-policy"]


def test_files_carry_the_headers_that_they_need(client):
    element, asset = client.http.get("/element.js"), client.http.get("/assets/a1.js")
    assert element.headers["cross-origin-resource-policy"] == "cross-origin"
    assert element.headers["access-control-allow-origin"] == "*"
    assert "immutable" in asset.headers["cache-control"]
    assert asset.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    ["/../outside.txt", "/%2e%2e/outside.txt", "/assets/../../outside.txt", "/assets/..%2f..%2foutside.txt",
     "/..%5coutside.txt", "//etc/passwd", "/assets", "/link.txt", "/%00", "/element.js%00.txt",
     "/" + "a" * 5000],
)  # fmt: skip
def test_paths_lead_nowhere_else(client, path):
    answer = client.http.get(path)
    assert answer.status_code in {404, 405}
    assert "outside" not in answer.text
    assert "root:" not in answer.text


def test_without_a_built_client_the_page_says_so(one, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "STATIC", tmp_path / "none")
    assert code(one.http.get("/check/x")) == "client_not_built"
    found = Running(one.settings.model_copy(update={"state_directory": tmp_path / "second"}))
    with found.http:
        assert code(found.http.get("/element.js")) == "not_found"
        assert code(found.http.delete("/v1/checks")) == "method_not_allowed"


def test_every_answer_has_security_headers(one):
    for path in ("/healthz", "/readyz", "/nothing", "/v1/checks", "/.well-known/jwks.json", "/openapi.json"):
        headers = one.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_metrics_are_the_operators(one, frame):
    assert code(one.http.get("/metrics")) == "not_found"  # the test client is not on loopback
    for public, status in (
        ("", 200),
        ("https://age.example", 404),
    ):  # behind a proxy everybody may seem to be
        changes = {"public_url": public, "state_directory": one.settings.state_directory / f"{status}"}
        found = Running(one.settings.model_copy(update=changes))
        with TestClient(found.http.app, client=("127.0.0.1", 1)) as near:
            assert near.get("/metrics").status_code == status
    keyed = one.settings.model_copy(update={"metrics_key": Settings(metrics_key="m").metrics_key})
    found = Running(keyed.model_copy(update={"state_directory": keyed.state_directory / "second"}))
    with found.http:
        found.post(found.create().json(), "faces", {"frames": [frame]})
        assert (
            code(found.http.get("/metrics", headers={"Authorization": "Bearer x"})) == "credentials_invalid"
        )
        text = found.http.get("/metrics", headers={"Authorization": "Bearer m"}).text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"ageveil_requests", "ageveil_outcomes", "ageveil_model_seconds", "ageveil_refused"} <= names
    assert 'route="/v1/checks/{check_id}/faces"' in text
    assert AUDIENCE not in text


def test_an_unexpected_error_tells_nothing(one):
    broken = Guard(make_app(replace(one.service, limits=None)), picture_bytes=1, seconds=1)
    with TestClient(broken, raise_server_exceptions=False) as http:
        answer = http.get("/v1/checks/secret-text", headers={"Authorization": "Check secret-text"})
    assert code(answer) == "internal"
    assert "limits" not in answer.text
    record = logging.LogRecord("ageveil.service", 40, "", 0, "failed", None, None)
    try:
        raise ValueError("secret-text")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["exception"]) == ("failed", "ValueError")
    assert "secret-text" not in str(line)
    foreign = logging.LogRecord("library", 40, "", 0, "lost %s", ("secret-text",), None)
    assert json.loads(JsonFormatter().format(foreign))["event"] == "library"


def test_too_many_faces_at_a_time_are_sent_away(one, frame, tmp_path):
    changes = {"queue": 1, "estimator_threads": 1, "state_directory": tmp_path / "second"}
    found = Running(one.settings.model_copy(update=changes))
    with found.http:
        made = [found.create().json() for _ in range(12)]
        with ThreadPoolExecutor(12) as pool:
            codes = list(
                pool.map(lambda check: found.post(check, "faces", {"frames": [frame]}).status_code, made)
            )
    assert set(codes) == {200, 503}


def test_migrations_make_the_tables_that_the_code_knows(running):
    with running.service.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_openapi_document_is_the_committed_one():
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi_document()


def test_every_setting_is_documented():
    page = (ROOT / "docs" / "service.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | {field.description} |" in page


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("authorized", [True, False])
def test_whatever_is_asked_is_answered_as_the_document_says(client, mode, authorized):
    """Schemathesis makes requests that the document allows, and some that it does not."""
    client.service.limits.__init__(10**6, 10**6)
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.http.app)
    asked = set()
    for operation in (found.ok() for found in schema.get_all_operations()):

        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            headers = {}
            if authorized:
                check = client.create(nonce=nonce(), modes=["anonymized", "device"]).json()
                bearer = case.path.endswith(("/checks", "/redeem", "/appeals"))
                headers = client.party if bearer else {"Authorization": f"Check {check['secret']}"}
                if mode is GenerationMode.POSITIVE and "check_id" in case.path_parameters:
                    case.path_parameters["check_id"] = check["id"]
            case.call_and_validate(headers=headers, checks=CONFORM)
            asked.add(case.operation.label)

        try:
            ask()
        except Unsatisfiable:  # a route that takes nothing can be asked for nothing that it does not take
            assert mode is GenerationMode.NEGATIVE
    assert {"POST /v1/checks", "POST /v1/checks/{check_id}/faces", "POST /v1/tokens/redeem"} <= asked


def test_the_examples_of_deployment_name_real_settings():
    for name in ("compose.yaml", "ageveil.service"):
        text = (ROOT / "examples" / "deploy" / name).read_text()
        named = {word.lower() for word in re.findall(r"\bAGEVEIL_([A-Z_]+)\b", text)}
        assert named
        assert named <= set(Settings.model_fields)
