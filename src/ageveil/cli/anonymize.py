"""`ageveil anonymize`: hide every face of a picture, in place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import Outcome, console, each, finish, refuse_existing, refuse_own_source, shown
from ageveil.errors import AgeveilError, OutputError

if TYPE_CHECKING:
    from ageveil.anonymization import Approach, Key, Region


def anonymize(
    paths: Annotated[list[Path], typer.Argument(help="One picture or several.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results; it is made if it is missing.")],
    approach: options.Approach = "mosaic",
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Key of a cipher; without one a fresh key is thrown away, and only an attack undoes it."
        ),
    ] = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option(help="Draw a fresh key for a cipher and write it here, for you only."),
    ] = None,
    expect_faces: Annotated[
        int | None, typer.Option(min=0, help="Refuse a picture in which another number of faces is found.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Also hide this rectangle, X0,Y0,X1,Y1 in pixels, whatever is found in it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    force: Annotated[bool, typer.Option("--force", help="Replace results that exist.")] = False,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Hide every face of a picture and write it, with a receipt beside it, but no metadata.

    A second detector looks for faces that were missed; while it sees one, nothing is written. What both
    miss cannot be noticed: count the faces yourself (--expect-faces) where it matters. A cipher's result is
    written as PNG, so that `ageveil decrypt` can undo it.
    """
    from ageveil import anonymization, pipeline

    entry = anonymization.protective_approach(approach)
    way = pipeline.Pipeline(approach, detector=detector, landmarks=landmarks)
    regions = [_parse_region(text) for text in region or ()]
    targets = _targets(paths, out, entry, force=force)
    key = _key(entry, key_file, new_key_file)
    written: list[Path] = []

    def run(path: Path) -> tuple[int, int]:
        try:
            picture = way.anonymize_picture(path, expect_faces=expect_faces, regions=regions, key=key)
        except ValueError as error:
            if not regions:
                raise
            raise _UnsuitableRegionError(str(error)) from error
        _make_folder(out)
        pipeline.save_anonymized(targets[path], picture)
        written.append(path)
        return picture.faces, len(picture.receipts)

    def outcome(path: Path, counts: tuple[int, int]) -> Outcome:
        faces, hidden = counts
        target = targets[path]
        record = {
            "photo": str(path), "approach": entry.name, "output": str(target),
            "receipts": str(pipeline.receipt_path(target)), "hidden": hidden,
            "faces": faces, "regions": len(regions),
        }  # fmt: skip
        return Outcome(path, record)

    try:
        # `each` closes them before the key is judged: then no result is still on its way.
        outcomes = each(paths, pipeline.map_ordered(run, paths, workers), outcome, quiet=quiet)
    finally:
        if new_key_file is not None and not written:
            new_key_file.unlink(missing_ok=True)  # it opens nothing
    return finish(outcomes, _show, as_json=as_json, quiet=quiet)


class _UnsuitableRegionError(AgeveilError):
    """A region that suits other pictures does not lie within this one: the rest of them go on."""

    exit_code = 2


def _parse_region(text: str) -> Region:
    """Read "X0,Y0,X1,Y1".

    Raises:
        ValueError: It is no such text.
    """
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"a region is X0,Y0,X1,Y1 in whole pixels, got {text!r}") from None
    return x0, y0, x1, y1


def _targets(paths: Sequence[Path], out: Path, entry: Approach, *, force: bool) -> dict[Path, Path]:
    """Where each result goes.

    Raises:
        OutputError: Two results would share a name, one exists, or one would replace its own source.
    """
    from ageveil.image import WRITABLE

    if os.path.exists(out) and not os.path.isdir(out):
        raise OutputError(f"{str(out)!r} is no folder")
    targets = {}
    for path in paths:
        keep = path.suffix.lower() in WRITABLE and not entry.reversible
        targets[path] = out / (path.name if keep else f"{path.stem}.png")
    names = Counter(targets[path].name for path in paths)  # a picture that is named twice counts twice
    for path, target in targets.items():
        if names[target.name] > 1:
            raise OutputError(f"several results would be written as {str(target)!r}")
        refuse_own_source(target, path)
        refuse_existing(target, force=force)
    return targets


def _make_folder(out: Path) -> None:
    """Make the folder for the results, once there is one to write.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(out)!r}: {error.strerror}") from error


def _key(entry: Approach, key_file: Path | None, new_key_file: Path | None) -> Key | None:
    """The key to use, None for one that is thrown away.

    Raises:
        ValueError: A key for an approach that takes none, or both options.
        CipherError: The key file cannot be read, or is of another kind than the approach takes.
    """
    from ageveil import anonymization, ciphers
    from ageveil.errors import CipherError

    if key_file is None and new_key_file is None:
        return None
    if key_file is not None and new_key_file is not None:
        raise ValueError("choose one of --key-file and --new-key-file")
    if entry.cipher is None:
        raise ValueError(f"{entry.name} takes no key: it cannot be undone")
    if new_key_file is not None:
        key = anonymization.draw_key(entry)
        ciphers.write_key_file(new_key_file, key)
        return key
    assert key_file is not None  # noqa: S101 - for the type checker: one of the two is given
    key = ciphers.read_key_file(key_file)
    if not isinstance(key, entry.cipher):
        raise CipherError(f"{entry.name} takes a key of another kind than the key file holds")
    return key


def _show(outcome: Outcome) -> None:
    record = outcome.record
    hidden = [
        f"{record[name]} {name if record[name] != 1 else name.removesuffix('s')}"
        for name in ("faces", "regions")
        if record[name]
    ]
    console().print(
        f"{shown(record['photo'])} -> [bold]{shown(record['output'])}[/]  "
        f"{' and '.join(hidden)} hidden by {record['approach']}"
    )
