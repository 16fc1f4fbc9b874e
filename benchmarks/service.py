"""Measure the service under load beside the model alone, on the same machine in the same run.

    python benchmarks/service.py --out benchmarks/service.md

A check is three requests: the party creates it, the browser sends one anonymized face, the party redeems the
token. The load comes from this process, so it takes its share of the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ageveil import estimation
from ageveil.anonymization import anonymize_crop
from ageveil.image import read_image
from ageveil.inspection import inspect
from ageveil.pipeline import Pipeline
from ageveil.types import AnonymizedFace
from speed import PORTRAIT, heading, in_turn, seconds, summary

_LANES = 4  # checks at a time that fill the server
_APPROACHES = ("veil", "mosaic")  # the default, and what stands in for it where its network is not installed
_FEWER = 1000  # checks behind the second, which shows its speed alone


@dataclass
class Server:
    """A service as a process of its own."""

    port: int
    key: str
    pid: int

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def processor(self) -> float:
        """Seconds of processor time so far, in the program and in the kernel."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(state: str, approach: str) -> Iterator[Server]:
    """Start the service, and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "AGEVEIL_APPROACH": approach,
        "AGEVEIL_ADDRESS_PER_MINUTE": "1000000",
        "AGEVEIL_PARTY_PER_MINUTE": "1000000",
        "AGEVEIL_STATE_DIRECTORY": str(Path(state, "state")),
    }
    with Path(state, "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ageveil", "serve", "--port", str(port)],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, **settings},
        )  # fmt: skip
    assert process.stdout is not None
    printed = "".join(process.stdout.readline() for _ in range(3))
    found = re.search(r"once\): (\S+)", printed)
    assert found is not None, printed
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Server(port, found[1], process.pid)
    finally:
        process.terminate()
        process.communicate()


class Lane:
    """One kept connection, with as little work of its own as can be."""

    def __init__(self, server: Server, face: bytes) -> None:
        self._server, self._face = server, face
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, authorization: str, body: bytes) -> dict[str, str]:
        """Post a body and return the answer's fields."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._server.port)
        reader, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        data: dict[str, str] = json.loads(await reader.readexactly(length))
        if not re.match(r"http/1.1 20[01]", answer):
            raise RuntimeError(data["code"])
        return data

    async def check(self) -> float:
        """One whole check; returns the seconds of the request that holds the face."""
        bearer, nonce = f"Bearer {self._server.key}", secrets.token_urlsafe(16)
        origin = f"http://127.0.0.1:{self._server.port}"
        asked = {"minimum_age": 18, "audience": origin, "nonce": nonce, "tries": 1}
        made = await self.ask("/v1/checks", bearer, json.dumps(asked).encode())
        start = time.perf_counter()
        path, secret = f"/v1/checks/{made['id']}/faces", f"Check {made['secret']}"
        ended = await self.ask(path, secret, self._face)
        taken = time.perf_counter() - start
        sent = {"token": ended["token"], "nonce": nonce}
        await self.ask("/v1/tokens/redeem", bearer, json.dumps(sent).encode())
        return taken


async def closed(check: list[Callable[[], Awaitable[float]]], count: int) -> tuple[float, list[float]]:
    """As many checks as the lanes manage: checks a second, and the seconds of each face."""
    times: list[float] = []
    left = iter(range(count))

    async def run(one: Callable[[], Awaitable[float]]) -> None:
        for _ in left:
            times.append(await one())

    start = time.perf_counter()
    await asyncio.gather(*(run(one) for one in check))
    return count / (time.perf_counter() - start), times


async def opened(make: Callable[[], Lane], rate: float, count: int) -> list[float]:
    """Checks at fixed moments, whether earlier ones have ended or not; lanes are used again."""
    idle: list[Lane] = []

    async def one() -> float:
        lane = idle.pop() if idle else make()
        taken = await lane.check()
        idle.append(lane)
        return taken

    begun = []
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        begun.append(asyncio.create_task(one()))
    return list(await asyncio.gather(*begun))


def figures(face: AnonymizedFace, count: int) -> dict[str, str]:
    """Everything measured behind one approach: what -> figure."""
    text = base64.b64encode(zlib.compress(face.pixels.tobytes())).decode()
    frame = {"pixels": text, "receipt": face.receipt.to_json()}
    body = json.dumps({"frames": [frame]}).encode()
    with tempfile.TemporaryDirectory() as state, server(state, face.approach) as found:
        make = partial(Lane, found, body)
        alone = make()
        with asyncio.Runner() as loop:
            loop.run(closed([alone.check], 20))
            # The same request and the same work without a server, in turn: what lies between is the server's.
            times = in_turn(
                {
                    "model": lambda: seconds(lambda: estimation.estimate([face], threads=1)),
                    "inspection": lambda: seconds(
                        lambda: inspect(face.pixels, face.receipt, approach=face.approach)
                    ),
                    "request": lambda: loop.run(alone.check()),
                },
                60,
            )
            parts = (times["request"], times["model"], times["inspection"])
            own = [whole - model - looked for whole, model, looked in zip(*parts, strict=True)]
            before, worked = found.memory(), found.processor()
            rate, _ = loop.run(closed([make().check for _ in range(_LANES)], count))
            after, worked = found.memory(), found.processor() - worked
            half = loop.run(opened(make, rate / 2, min(count, 500)))
    p50, p99 = (statistics.quantiles(half, n=100)[place] * 1000 for place in (49, 98))
    return {
        "the model alone, one thread, ms": summary(times["model"]),
        "the inspection alone, one thread, ms": summary(times["inspection"]),
        "the request with a face, one at a time, ms": summary(times["request"]),
        "of which neither model nor inspection, ms": summary(own),
        f"whole checks a second, {_LANES} at a time": f"{rate:.1f}",
        "processor time of the service for a whole check, ms": f"{1000 * worked / count:.1f}",
        "model alone, faces a second on one thread": f"{1 / statistics.median(times['model']):.1f}",
        "at half that load: face answered, median and p99, ms": f"{p50:.1f}, {p99:.1f}",
        "requests between which memory was looked at": f"{3 * count}",
        "resident memory before and after them, MiB": f"{before:.0f}, {after:.0f}",
    }


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--checks", type=int, default=2000)
    chosen = parser.parse_args()
    _, crop = Pipeline().align_viewer(read_image(PORTRAIT))
    counts = (chosen.checks, min(chosen.checks, _FEWER))
    lines = heading(
        "The service under load",
        f"python benchmarks/service.py --checks {chosen.checks}",
        ["fastapi", "uvicorn", "onnxruntime"],
    )
    columns = [
        figures(anonymize_crop(crop, approach), count)
        for approach, count in zip(_APPROACHES, counts, strict=True)
    ]
    lines += [
        "Medians, with quartiles in brackets. Default model and settings, SQLite, load from the same cores.",
        "",
        f"| what | {' | '.join(_APPROACHES)} |",
        "|---|---|---|",
        *(f"| {what} | {' | '.join(column[what] for column in columns)} |" for what in columns[0]),
    ]
    text = "\n".join(lines) + "\n"
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
