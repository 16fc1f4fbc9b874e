"""Tests of what names the tests that were left out. The truth is a run of pytest on a few small tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SMALL_TESTS = """
import pytest

def test_passes():
    pass

def test_needs_faces(ageveil_data):
    pass

@pytest.mark.skipif(True, reason="left out: no such system part")
def test_needs_a_part():
    pass

def test_does_not_apply():
    pytest.skip("other systems only")
"""
LEFT_OUT = [
    "test_small.py::test_needs_faces: $AGEVEIL_DATA (real faces) is not set",
    "test_small.py::test_needs_a_part: no such system part",
]


def run(folder, tests, **variables):
    """Exit code and output of a run of `tests` with our conftest."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_small.py").write_text(tests)
    hidden = ("AGEVEIL_DATA", "AGEVEIL_NOTHING_LEFT_OUT", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)  # for the fixtures that conftest imports
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder],
        env=environment | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def left_out(output):
    """The lines of the section, without its title."""
    lines = output.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("=") and " left out: " in line), None)
    return [] if start is None else [line for line in lines[start + 1 :] if line.startswith("test_")]


def test_tests_left_out_are_named_and_others_are_not(tmp_path):
    code, output = run(tmp_path, SMALL_TESTS)
    assert code == 0
    assert left_out(output) == LEFT_OUT


def test_where_nothing_may_be_left_out_the_run_fails(tmp_path):
    code, output = run(tmp_path, SMALL_TESTS, AGEVEIL_NOTHING_LEFT_OUT="1")
    assert code == 1
    assert left_out(output) == LEFT_OUT


def test_with_everything_at_hand_nothing_is_named(tmp_path):
    tests = SMALL_TESTS.replace("True, reason", "False, reason")
    code, output = run(tmp_path, tests, AGEVEIL_DATA=str(tmp_path), AGEVEIL_NOTHING_LEFT_OUT="1")
    assert code == 0
    assert "left out" not in output


def test_a_skipped_module_is_named_by_its_file(tmp_path):
    tests = 'import pytest\npytest.skip("left out: no library", allow_module_level=True)\n'
    code, output = run(tmp_path, tests)
    assert code != 0  # pytest's own answer where no test ran
    assert left_out(output) == ["test_small.py: no library"]


def test_a_folder_of_faces_that_is_not_there_is_an_error_and_not_left_out(tmp_path):
    code, output = run(tmp_path, SMALL_TESTS, AGEVEIL_DATA=str(tmp_path / "missing"))
    assert code == 1
    assert "names no folder" in output
