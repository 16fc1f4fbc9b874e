"""The API: what parties and browsers call, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.security.http import HTTPBase

from ageveil.service import checks, metrics, schemas, tokens
from ageveil.service.checks import Answer, Check, Mode
from ageveil.service.database import reading
from ageveil.service.judge import Ask
from ageveil.service.parties import Party, find_party
from ageveil.service.problems import CODES, Problem
from ageveil.service.service import Service

_PARTY = HTTPBase(scheme="bearer", scheme_name="party", description="API key of a party.", auto_error=False)
_BROWSER = HTTPBase(scheme="check", scheme_name="browser", description="Secret of a check.", auto_error=False)

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_PARTY)]
Opener = Annotated[HTTPAuthorizationCredentials | None, Depends(_BROWSER)]


async def of(request: Request) -> Service:  # async: else each request would take a thread for it
    """The process's service."""
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(of)]

router = APIRouter(responses=schemas.documented(*CODES))


def _secret(given: HTTPAuthorizationCredentials | None, scheme: str) -> str:
    if given is None or given.scheme.lower() != scheme:
        raise Problem("credentials_missing", f"expected the header Authorization: {scheme.title()} ...")
    return given.credentials


def count_address(request: Request, service: Service) -> None:
    """Count a request against its address.

    Raises:
        Problem: It was one too many.
    """
    service.limits.address(request.client.host if request.client else "")


def _asking(request: Request, service: Running, bearer: Bearer) -> Party:
    """Who asks; a wrong key counts against its address."""
    try:
        key = _secret(bearer, "bearer")
        with reading(service.engine) as connection:
            party = find_party(connection, key)
        if party is None:
            raise Problem("credentials_invalid", "no party has this API key")
    except Problem:
        count_address(request, service)
        raise
    service.limits.party(party.id)
    return party


def _opened(request: Request, service: Running, check_id: str, opener: Opener) -> Check:
    """The check that a browser has the secret of."""
    count_address(request, service)
    secret = _secret(opener, "check")
    with reading(service.engine) as connection:
        return checks.opened(connection, check_id, secret)


# Dependencies run before a body's fields are looked at: whoever may not ask is counted and costs little.
Asking = Annotated[Party, Depends(_asking)]
Opened = Annotated[Check, Depends(_opened)]


def create_check(service: Service, party: Party, asked: schemas.NewCheck) -> schemas.CreatedCheck:
    """Create a check for a party; the demo does so without a key."""
    ask = Ask(asked.board, asked.rating, asked.minimum_age, asked.accompanied)
    modes: tuple[Mode, ...] = tuple(dict.fromkeys(asked.modes))
    if "device" in modes and not service.judge.runs_on_device:
        raise Problem("mode_not_allowed", "the server's model does not run on devices")
    now = service.clock()
    expires = int(now) + asked.ttl_seconds
    check = checks.draft(
        party,
        audience=asked.audience,
        nonce=asked.nonce,
        ask=ask,
        modes=modes,
        tries=asked.tries,
        expires=expires,
    )
    decided = service.judge.terms(ask).settle()
    settled = None if decided is None else service.answer(check, decided.outcome, "rating")
    with service.engine.begin() as connection:
        check, secret = checks.create(connection, service.keys, party, check, settled, now)
    return schemas.CreatedCheck(
        id=check.id,
        secret=secret,
        url=f"{service.settings.origin}/check/{check.id}#{secret}",
        expires_at=check.expires,
        outcome=None if settled is None else settled.outcome,
        token=service.token(check),
    )


@router.post("/v1/checks", status_code=201)
def post_check(service: Running, party: Asking, asked: schemas.NewCheck) -> schemas.CreatedCheck:
    """Ask for a check of one visitor."""
    return create_check(service, party, asked)


@router.get("/v1/checks/{check_id}")
def get_check(service: Running, check: Opened) -> schemas.CheckView:
    """What the browser must know before it begins."""
    judge, terms = service.judge, service.judge.terms(check.ask)
    info = judge.model.info
    return schemas.CheckView(
        id=check.id,
        state=check.state(service.clock()),
        audience=check.audience,
        board=check.ask.board,
        rating=check.ask.mark,
        minimum_age=service.answer(check, "step_up", "none").minimum_age,
        approach=judge.approach,
        filter=None if judge.filter is None else schemas.Filter(
            sha256=judge.filter.sha256, licence=judge.filter.licence, url=_file_url(judge.filter.sha256)
        ),
        frames=judge.frames,
        tries_left=check.tries_left,
        modes=list(check.modes),
        outcome=None if check.answer is None else check.answer.outcome,
        expires_at=check.expires,
        model=schemas.Model(
            name=info.name, version=info.version, sha256=info.sha256, licence=info.licence,
            url=_file_url(info.sha256),
        ),
        terms=schemas.Terms(
            buffer=terms.policy.buffer or 0, confidence=terms.policy.confidence, temperature=judge.temperature
        ),
    )  # fmt: skip


def _file_url(sha256: str) -> str:
    return f"/v1/models/{sha256}.onnx"


@router.post("/v1/checks/{check_id}/faces")
def post_faces(service: Running, check: Opened, sent: schemas.Faces) -> schemas.TryResult:
    """Try with anonymized pictures. A bare face is refused and forgotten, and costs no try."""
    checks.require_open(check, service.clock(), "anonymized")
    frames = [(frame.pixels, frame.receipt) for frame in sent.frames]
    outcome = service.estimate(service.judge.terms(check.ask), frames)
    return _answered(service, check, service.answer(check, outcome, "server", _reported(sent.signals)))


@router.post("/v1/checks/{check_id}/decision")
def post_decision(service: Running, check: Opened, sent: schemas.DeviceDecision) -> schemas.TryResult:
    """Try with a decision that the device made itself, where the party takes those."""
    checks.require_open(check, service.clock(), "device")
    if sent.model != service.judge.model.info.sha256:
        raise Problem("model_unknown", "the device decided with another model than this check's")
    return _answered(service, check, service.answer(check, sent.outcome, "client", _reported(sent.signals)))


@router.post("/v1/checks/{check_id}/end")
def post_end(service: Running, check: Opened) -> schemas.TryResult:
    """Take the last outcome though tries are left; without a try it is step_up.

    A completed check gives its token again, for a browser that lost the answer.
    """
    if check.state(service.clock()) == "completed":
        return _result(service, check)
    given = check.answer or service.answer(check, "step_up", "none")
    return _answered(service, check, given, ends=True)


def _answered(service: Service, check: Check, given: Answer, *, ends: bool = False) -> schemas.TryResult:
    with service.engine.begin() as connection:
        check = checks.answer(connection, service.keys, check, given, service.clock(), ends=ends)
    if not ends:
        metrics.OUTCOMES.labels(given.outcome, given.computed).inc()
    return _result(service, check)


def _result(service: Service, check: Check) -> schemas.TryResult:
    if check.answer is None:
        raise ValueError("an untried check has no result")
    return schemas.TryResult(
        outcome=check.answer.outcome, tries_left=check.tries_left, token=service.token(check)
    )


def _reported(signals: schemas.Signals | None) -> dict[str, Any] | None:
    """Signals as they are kept: in tenths, so that they do not tell one visitor from another."""
    if signals is None:
        return None
    given = signals.model_dump(exclude_none=True)  # Claims shows those that are missing as null
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in given.items()}


def redeem(service: Service, party: Party, sent: schemas.Redeem) -> schemas.Claims:
    """Read a token once for a party; the demo does so without a key."""
    claims = tokens.read(service.keys, sent.token, issuer=service.settings.origin, now=service.clock())
    if claims["aud"] not in party.audiences:
        raise Problem("audience_unknown", "the token is for another audience")
    if claims["nonce"] != sent.nonce:
        raise Problem("nonce_mismatch", "the token has another nonce")
    with service.engine.begin() as connection:
        checks.redeem(connection, party, claims["jti"], sent.nonce)
    return schemas.Claims(**claims)


@router.post("/v1/tokens/redeem")
def post_redeem(service: Running, party: Asking, sent: schemas.Redeem) -> schemas.Claims:
    """Take a token: its claims, once."""
    return redeem(service, party, sent)


@router.post("/v1/checks/{check_id}/appeals", status_code=201)
def post_appeal(service: Running, party: Asking, check_id: str, sent: schemas.NewAppeal) -> schemas.Recorded:
    """Write down that a decision was appealed or another proof was taken. Nothing is uploaded."""
    with service.engine.begin() as connection:
        record = {"appeal": sent.kind, "result": sent.result}
        record_hash = checks.appeal(connection, service.keys, party, check_id, record, service.clock())
    return schemas.Recorded(record=record_hash)


@router.get("/.well-known/jwks.json")
def get_jwks(service: Running) -> dict[str, list[dict[str, str]]]:
    """The public keys, for parties that verify tokens themselves."""
    return service.keys.public()
