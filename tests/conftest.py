"""What all tests share: pictures, how commands run and properties are tried, and what was left out.

A test that needs something this machine lacks calls `pytest.skip("left out: <what is missing>")`. Every such
test is named at the end of the run; with AGEVEIL_NOTHING_LEFT_OUT=1 it makes the run fail.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from tests.loopback import postgres

from ageveil.anonymization import APPROACHES
from ageveil.cli import main

# The same examples on every machine, and no limit on the time of one: shared machines stall.
settings.register_profile("ageveil", derandomize=True, deadline=None)
settings.load_profile("ageveil")

__all__ = ["postgres"]  # a fixture of all tests

VEIL_IS_MISSING = "left out: the weights of the approach veil are not installed"
EXAMPLES = Path(__file__).parent.parent / "examples"


def installed(names):
    """Approaches to try a test with; one whose network is not installed is left out by name."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not APPROACHES[name].usable, reason=VEIL_IS_MISSING))
        for name in names
    ]


@pytest.fixture(scope="session")
def ageveil_data() -> Path:
    """The folder of real faces, `$AGEVEIL_DATA`."""
    folder = os.environ.get("AGEVEIL_DATA")
    if not folder:
        pytest.skip("left out: $AGEVEIL_DATA (real faces) is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"$AGEVEIL_DATA names no folder: {folder}")
    return path


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """A public-domain portrait, 512 x 512."""
    return EXAMPLES / "astronaut.jpg"


@pytest.fixture(scope="session")
def grace_hopper() -> Path:
    """A public-domain portrait, 512 x 600."""
    return EXAMPLES / "grace_hopper.jpg"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capfd, monkeypatch):
    """Run a command line in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ageveil", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(end.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def process():
    """Run a command line in a process of its own; options as for `subprocess.run`."""

    def call(*words, **options):
        options = {"capture_output": True, "text": True, "timeout": 120} | options
        done = subprocess.run([sys.executable, "-m", "ageveil", *map(str, words)], check=False, **options)
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


class LeftOut:
    """Names the tests that were left out, and fails the run where none may be."""

    PREFIX = "Skipped: left out: "

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.forbidden = os.environ.get("AGEVEIL_NOTHING_LEFT_OUT") == "1"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # A module that is skipped as a whole is named by its file.
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            message = report.longrepr[2]
            if message.startswith(self.PREFIX):
                self.reasons[report.nodeid] = message.removeprefix(self.PREFIX)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.reasons and self.forbidden and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.reasons:
            return
        terminalreporter.section(f"left out: {len(self.reasons)}")
        for name, reason in self.reasons.items():
            terminalreporter.line(f"{name}: {reason}")
        if self.forbidden:
            terminalreporter.line("AGEVEIL_NOTHING_LEFT_OUT is 1: the run fails", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(), "ageveil-left-out")
