"""The client's own tests in TypeScript, beside those of this folder: types, and units against the vectors."""


def test_types(npm):
    npm("check")


def test_units(npm):
    npm("test")
