"""Signing keys: Ed25519, one private file each; the newest that has been published long enough signs."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ageveil.errors import DataError
from ageveil.files import make_directory, write_bytes
from ageveil.service.logs import LOG


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A key with its name.

    Attributes:
        kid: Its thumbprint (RFC 7638).
        created: Unix time in whole seconds.
        private: The key itself.
    """

    kid: str
    created: int
    private: Ed25519PrivateKey

    @classmethod
    def of(cls, private: Ed25519PrivateKey, created: int) -> Self:
        """Name a key."""
        x = _base64url(private.public_key().public_bytes_raw())
        members = {"crv": "Ed25519", "kty": "OKP", "x": x}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
        return cls(_base64url(digest), created, private)

    def public(self) -> dict[str, str]:
        """The public half as a JSON Web Key (RFC 8037)."""
        x = _base64url(self.private.public_key().public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA"}


@dataclass(frozen=True, slots=True, eq=False)
class KeyRing:
    """All keys of a directory, the oldest first; at least one.

    Attributes:
        keys: In the order of their making.
        delay: Seconds that a key is published before it signs, so that nobody meets it unprepared.
    """

    keys: tuple[SigningKey, ...]
    delay: int = 0

    def active(self, now: float) -> SigningKey:
        """The key that signs: the newest one that has been published long enough, else the oldest."""
        ready = [key for key in self.keys if key.created + self.delay <= now]
        return ready[-1] if ready else self.keys[0]

    def public(self) -> dict[str, list[dict[str, str]]]:
        """All public halves as a JSON Web Key Set."""
        return {"keys": [key.public() for key in self.keys]}

    def sign(self, claims: Mapping[str, Any], kind: str, now: float) -> str:
        """Sign claims as a compact JWS of a type, so that none can be taken for one of another type."""
        key = self.active(now)
        return jwt.encode(dict(claims), key.private, "EdDSA", headers={"kid": key.kid, "typ": kind})

    def verify(self, token: str, kind: str) -> dict[str, Any]:
        """Return what one of the keys has signed. Times, issuer and audience are not looked at.

        Raises:
            ValueError: It is no JWS of that type by one of the keys.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = next(key for key in self.keys if key.kid == header.get("kid"))
            claims = jwt.decode(
                token, key.private.public_key(), ["EdDSA"],
                options={
                    "verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False,
                    "verify_iss": False, "verify_sub": False, "verify_jti": False,
                },
            )  # fmt: skip
        except (StopIteration, jwt.PyJWTError):
            raise ValueError("expected a token signed by one of the keys") from None
        if header.get("typ") != kind:
            raise ValueError(f"expected a token of type {kind}")
        return claims


def generate_key(directory: Path, now: float | None = None) -> SigningKey:
    """Make a key and write it where only its owner reads it.

    Raises:
        OutputError: It cannot be written.
    """
    key = SigningKey.of(Ed25519PrivateKey.generate(), int(time.time() if now is None else now))
    make_directory(directory, private=True)
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_bytes(directory / f"{key.created:012d}-{key.kid}.pem", [pem], private=True)
    return key


def read_keys(directory: Path, delay: int = 0) -> KeyRing:
    """Read the keys of a directory.

    Raises:
        DataError: There is none, or a file is no such key.
    """
    keys = []
    for file in sorted(directory.glob("*.pem")):
        created, _, kid = file.stem.partition("-")
        try:
            private = serialization.load_pem_private_key(file.read_bytes(), None)
            if not isinstance(private, Ed25519PrivateKey):
                raise ValueError("another kind of key")
            key = SigningKey.of(private, int(created))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{file.name}: expected a private Ed25519 key in PEM") from error
        if key.kid != kid:
            raise DataError(f"{file.name}: expected the key {kid}, got {key.kid}")
        keys.append(key)
    if not keys:
        raise DataError(f"{directory} holds no signing key")
    return KeyRing(tuple(keys), delay)


class KeyStore:
    """The keys of a directory, read again once the directory has changed: rotation needs no restart.

    Raises:
        DataError: As `read_keys`.
    """

    def __init__(self, directory: Path, delay: int) -> None:
        self._directory, self._delay = directory, delay
        self._seen, self._ring = self._changed(), read_keys(directory, delay)

    def _changed(self) -> int:
        return self._directory.stat().st_mtime_ns

    def current(self) -> KeyRing:
        """The keys as they are now; where the directory is gone or damaged, those that were read last."""
        try:
            changed = self._changed()
            if changed != self._seen:
                self._ring, self._seen = read_keys(self._directory, self._delay), changed
        except (DataError, OSError) as error:
            # Told each time: a key that was deleted to end it would otherwise sign on unseen.
            LOG.error("keys", {"exception": type(error).__name__})
            return self._ring
        return self._ring


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
