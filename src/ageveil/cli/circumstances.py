"""How a published figure came about: command, commit, date, hardware, software and time."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless")


def circumstances(commit: str, seconds: float) -> dict[str, Any]:
    """What stands beside the figures of a report.

    Args:
        commit: As `commit` gave it when the work began.
        seconds: That the work took.
    """
    software = [f"{package} {version(package)}" for package in _PACKAGES]
    return {
        "command": without_folder(shlex.join(["ageveil", *sys.argv[1:]])),
        "commit": commit,
        "version": version("ageveil"),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}",
        "software": ", ".join([f"Python {platform.python_version()}", *software]),
        "seconds": round(seconds),
    }


def without_folder(text: str) -> str:
    """Name the folder of real faces as a reader can: by its variable."""
    folder = os.environ.get("AGEVEIL_DATA")
    return text.replace(folder.rstrip("/"), "$AGEVEIL_DATA") if folder else text


def commit() -> str:
    """The commit of the checkout that runs, marked where files differ from it; else the version."""
    here = Path(__file__).parent
    commands = (
        # Tracked here? A package that is merely installed below somebody's repository is not of its commit.
        ["git", "ls-files", "--error-unmatch", "app.py"],
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
    )
    told = ""
    for command in commands:
        try:
            ended = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError):
            return f"version {version('ageveil')}"
        told = ended.stdout.strip()
    return told


def _processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"
