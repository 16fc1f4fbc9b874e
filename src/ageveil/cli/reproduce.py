"""`ageveil reproduce`: the paper's tables and figures from a data set, as one page and one JSON record."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ageveil.cli import options
from ageveil.cli.circumstances import circumstances, commit, without_folder
from ageveil.cli.output import console, print_json, progress, shown
from ageveil.cli.train import Prepared, Runs

if TYPE_CHECKING:
    from ageveil.evaluation.accuracy import Faces
    from ageveil.evaluation.report import LineUp
    from ageveil.training.labels import LabelledImage
    from ageveil.training.recipes import Recipe
    from ageveil.types import CanonicalCrop


_NONE = "none"
"""Stands for no model, where one would be taken by default."""


def reproduce(
    data: Annotated[
        str, typer.Option(help="Faces to report on, as utkface:DIR; or prepared:DIR, their crops.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for index.html and report.json; made if missing.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The paper's baseline: a model, a recipe (.toml) that is trained first, or none; by "
            "default vgg16 where it is installed."
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="The paper's attention model, likewise; by default vgg16-attention where it is installed."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Other models or recipes, with commas between, or none; by default the best one installed."
        ),
    ] = None,
    prepared: Prepared = Path("prepared"),
    runs: Runs = Path("runs"),
    licence: options.Licence = "any",
    validation: Annotated[
        str | None,
        typer.Option(
            help="The models' training data, named as --data, with other pictures: on the faces that all of "
            "them left out the threshold of the minors' share is fixed."
        ),
    ] = None,
    portrait: Annotated[
        list[Path] | None,
        typer.Option(help="A portrait that may be shown, for Fig. 1 and Fig. 3; may be given several times."),
    ] = None,
    no_faces: Annotated[
        bool, typer.Option("--no-faces", help="Show no photograph of the data set, only portraits.")
    ] = False,
    detector: options.Detector = "centerface",
    landmarks: options.Landmarks = "5",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many faces, drawn at random with --seed.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the bootstrap, the samples and the mosaic's draws.")
    ] = 0,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Reproduce the paper: Tables I and II, Figures 1, 3 and 4, and what else tells how good the models are.

    Accuracy, error in years, confusion, calibration, operating curves and the minors judged 18 or over, with
    intervals. The page shows the BARE FACES of the portraits and, without --no-faces, masked faces of the
    data set. Needs the extra "report".

    A recipe is trained first, or taken from --runs where it is finished. On a data set with folds, as
    Adience, it is trained once for each fold, and each face is judged by the model that has not seen its
    fold. A model's path may have {fold} in it for the same.
    """
    start, began_at = time.monotonic(), commit()
    from ageveil import pipeline
    from ageveil.evaluation import accuracy, page, plots, report
    from ageveil.files import make_directory, write_text
    from ageveil.image import read_image

    plots.check_installed()
    make_directory(out)
    asked = [name.strip() for name in (models or "").split(",") if name.strip() not in {"", _NONE}]
    wanted = [name for name in (baseline, attention, *asked) if name not in {None, _NONE}]
    _check_models(wanted, licence)
    way = pipeline.Pipeline(detector=detector, landmarks=landmarks, allow_others=True)
    # Portraits first: what is wrong with one shows before the long work.
    crops = [(photo, way.align_viewer(read_image(photo))[1]) for photo in portrait or []]
    faces = accuracy.open_faces(data, way, limit=limit, seed=seed)
    accuracy.check_groups(faces)
    _check_models(wanted, licence, faces)

    # All of them, and fewer later: whose photograph trained is told by those that trained.
    fixing = accuracy.open_faces(validation, way) if validation else None
    if fixing is not None:
        _check_others(fixing, faces)
    recipes = {name: _recipe(name, prepared, faces, licence) for name in wanted if _is_recipe(name)}

    def usable(name: str) -> str:
        if name not in recipes:
            return name
        return _trained(recipes[name], faces, prepared, runs, quiet=quiet or as_json)

    line_up = _line_up(
        baseline and usable(baseline),
        attention and usable(attention),
        None if models is None else [usable(name) for name in asked],
        licence,
        faces,
    )
    names = line_up.names
    pairs = report.questions(line_up)
    shown_by = {name: accuracy.members(name, faces.images)[0] for name in names}
    sheets, responses = _portraits(crops, shown_by, seed)
    if fixing is not None:
        with progress("copies", len(fixing.images), quiet=quiet) as bar:
            fixing = _left_out_by_all(fixing, names, workers=workers, advance=bar.advance)
        fixing = accuracy.part(fixing, accuracy.draw(len(fixing.images), limit, seed))

    def answer(asked: Faces, title: str) -> dict[tuple[str, str], accuracy.Estimates]:
        with progress(title, len(asked.images), quiet=quiet) as bar:
            return accuracy.estimate_all(asked, pairs, seed=seed, workers=workers, advance=bar.advance)

    found = answer(faces, "faces")
    record = report.build(
        found, line_up, validation=answer(fixing, "validation") if fixing else None, seed=seed
    )
    record["run"] = _run(data, validation, limit, faces.labels_left_out, began_at, time.monotonic() - start)
    shown_faces = () if no_faces else _qualitative(record["qualitative"], found["mask", names[0]], faces)
    pictures = page.Pictures(sheets, responses, shown_faces)
    # A record of names alone: where photographs are left out, so is which they were.
    if no_faces:
        for row in record["qualitative"]:
            del row["face"]
    write_text(out / "index.html", page.render(record, pictures))
    write_text(out / "report.json", report.as_text(record))
    summary = {"page": str(out / "index.html"), "report": str(out / "report.json")}
    if as_json:
        print_json(summary)
    elif not quiet:
        _show(record, out)
    return 0


def _check_models(
    names: Sequence[str], licence: Literal["any", "permissive"], faces: Faces | None = None
) -> None:
    """Tell what is wrong with a model before anything is opened, let alone trained.

    For which files a name with {fold} stands is known once the faces are there, which state the folds: so
    they are looked at by a second call, still before any training.
    """
    from ageveil import estimation
    from ageveil.evaluation import accuracy

    for name in names:
        if _is_recipe(name):
            continue
        if faces is not None:
            accuracy.choose_model(name, faces, licence)
        elif accuracy.FOLD not in name:
            estimation.choose_model(name, licence)


def _check_others(fixing: Faces, faces: Faces) -> None:
    """Check that a threshold is fixed on other pictures than those that are reported.

    Raises:
        ValueError: Some are the same.
    """
    both = _shared(fixing.images, faces.images)
    if both:
        raise ValueError(
            f"the faces that are reported cannot fix a threshold: --validation takes others, {len(both)} of "
            f"its pictures are in --data too, as {str(both[0])!r}"
        )


def _is_recipe(name: str) -> bool:
    return name.endswith(".toml")


def _recipe(name: str, prepared: Path, faces: Faces, licence: Literal["any", "permissive"]) -> Recipe:
    """A recipe whose models may be judged on these faces.

    Raises:
        ValueError: Its licence is not allowed, or its classes are not those that are scored.
        DataError: It cannot be read, or would train on the very faces.
    """
    from ageveil import estimation
    from ageveil.errors import DataError
    from ageveil.evaluation import accuracy
    from ageveil.training import networks, preparation, recipes, splits

    recipe = recipes.load_recipe(Path(name))
    if licence != "any" and recipe.licence not in estimation.PERMISSIVE:
        raise ValueError(f"the weights of {name} come under {recipe.licence}, which is not permissive")
    accuracy.check_resolution(name, networks.get_network(recipe.network).resolution, faces)
    if not splits.folds_of(faces.images):
        for part in recipe.data:
            both = _shared(preparation.load_prepared(prepared / part).images, faces.images)
            if both:
                raise DataError(
                    f"{name} would be judged on the faces that train it: they state no folds, and "
                    f"{len(both)} of its pictures are among them, as {str(both[0])!r}"
                )
    return recipe


def _shared(images: Iterable[LabelledImage], others: Iterable[LabelledImage]) -> list[Path]:
    """The pictures that are among others too, however they are named: as the same file, or as a copy of it.

    Files are read only where one of the others has as many bytes. Of what is gone, or cannot be read, the
    path alone counts: prepared faces outlast their pictures.
    """
    here, there = ({os.path.realpath(image.path): image.path for image in side} for side in (images, others))
    # Empty files are alike, and show nobody.
    sizes, other_sizes = ({path: size for path in side if (size := _size(path))} for side in (here, there))
    common = set(sizes.values()) & set(other_sizes.values())
    contents = {_digest(path) for path, size in other_sizes.items() if size in common} - {None}
    return [
        named
        for path, named in here.items()
        if path in there or (sizes.get(path) in common and _digest(path) in contents)
    ]


def _size(path: str) -> int:
    """How many bytes a file has; 0 where it is gone."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _digest(path: str) -> bytes | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _trained(recipe: Recipe, faces: Faces, prepared: Path, runs: Path, *, quiet: bool) -> str:
    """The model of a recipe, or a name that stands for one model for each fold."""
    from ageveil.evaluation.accuracy import FOLD
    from ageveil.training import crossvalidation, splits

    folds = splits.folds_of(faces.images)
    say = console(stderr=True)
    made = crossvalidation.train_models(
        recipe, folds, prepared=prepared, runs=runs, progress=not quiet,
        announce=lambda line: None if quiet else say.print(line),
    )  # fmt: skip
    return str(made[0]) if not folds else str(runs / f"{recipe.name}-{FOLD}" / crossvalidation.MODEL_FILE)


def _left_out_by_all(
    faces: Faces, models: Sequence[str], *, workers: int | None, advance: Callable[[], None]
) -> Faces:
    """The faces that no model was trained on, as far as the models say, and not under another name either.

    Raises:
        DataError: There are none.
    """
    from ageveil import estimation
    from ageveil.errors import DataError
    from ageveil.evaluation import accuracy, copies
    from ageveil.training import splits

    left_out = set(range(len(faces.images)))
    for member in {member for model in models for member in accuracy.members(model, faces.images)}:
        split = estimation.split_of(member)
        if split is not None:
            left_out &= set(splits.left_out(faces.images, **asdict(split)).tolist())
    unseen = copies.unseen(faces.crop, len(faces.images), left_out, workers=workers, advance=advance)
    if not unseen:
        raise DataError("each face of --validation trained one of the models")
    return accuracy.part(faces, unseen)


def _line_up(
    baseline: str | None,
    attention: str | None,
    models: Sequence[str] | None,
    licence: Literal["any", "permissive"],
    faces: Faces,
) -> LineUp:
    """The models asked for, or the paper's two and the best one, as far as they may be used.

    Raises:
        ValueError: One that was asked for is unknown, or its licence is not allowed.
        ModelError: None is installed.
    """
    from ageveil import estimation
    from ageveil.evaluation import accuracy, report

    def paper(asked: str | None, usual: str) -> str | None:
        if asked is None and not estimation.is_usable(usual, licence):
            return None
        if asked == _NONE or (asked is None and accuracy.has_own_bins(faces.dataset)):
            return None
        return accuracy.choose_model(asked or usual, faces, licence)

    others = [estimation.default_model(licence)] if models is None else models
    return report.LineUp(
        paper(baseline, "vgg16"),
        paper(attention, "vgg16-attention"),
        tuple(accuracy.choose_model(name, faces, licence) for name in others),
    )


# Pictures ---------------------------------------------------------------------------------------------------


def _portraits(
    crops: Sequence[tuple[Path, CanonicalCrop]], models: Mapping[str, str], seed: int
) -> tuple[Any, Any]:
    """Approach sheets, and rows of response maps from the models that have them.

    `models` says which model answers under each name.
    """
    from ageveil.draws import ChaChaDraws
    from ageveil.evaluation import figures
    from ageveil.evaluation.html import Picture

    sheets, rows = [], []
    for photo, crop in crops:
        name = photo.stem.replace("_", " ")
        sheet = figures.approach_sheet(crop, rng=ChaChaDraws(seed.to_bytes(32, "big")))
        sheets.append(Picture(sheet, f"{name}: one face through every approach, labelled"))
        row = [
            picture for model, member in models.items() for picture in _responses(crop, model, member, name)
        ]
        if row:
            rows.append((Picture(crop.pixels, f"{name}, the bare face", (name, "original")), *row))
    return tuple(sheets), tuple(rows)


def _responses(crop: CanonicalCrop, model: str, member: str, name: str) -> list[Any]:
    from ageveil import anonymization, estimation
    from ageveil.evaluation import figures
    from ageveil.evaluation.html import Picture
    from ageveil.types import AGE_GROUP_NAMES

    pictures = []
    for approach in ("original", "mask"):
        face = anonymization.anonymize_crop(crop, approach)
        try:
            (maps,) = estimation.response_maps([face], member)
        except ValueError:  # a model without maps
            return []
        (distribution,) = estimation.estimate([face], member)
        group = distribution.group
        said = f"{AGE_GROUP_NAMES[group]} ({100 * distribution.groups[group]:.0f} %)"
        overlay = figures.response_overlay(face.pixels, maps[group])
        alt = f"{name}, {approach}: response map of {model} for {AGE_GROUP_NAMES[group]}"
        pictures.append(Picture(overlay, alt, (f"{model}, {approach}", said)))
    return pictures


def _qualitative(rows: Sequence[Mapping[str, Any]], judged: Any, faces: Faces) -> tuple[Any, ...]:
    """The drawn faces behind the mask, with what was said of them."""
    from ageveil import anonymization
    from ageveil.evaluation.html import Picture

    pictures = []
    for row in rows:
        index = faces.images.index(judged.images[row["face"]])
        masked = anonymization.anonymize_crop(faces.crop(index), "mask")
        said = [f"{model}: {group}" for model, group in row["said"].items()]
        marks = ["good" if group == row["true"] else "bad" for group in row["said"].values()]
        alt = f"a masked face of {row['true']}; {', '.join(said)}"
        pictures.append(Picture(masked.pixels, alt, (f"true: {row['true']}", *said), ("", *marks)))
    return tuple(pictures)


# Circumstances ----------------------------------------------------------------------------------------------


def _run(
    data: str,
    validation: str | None,
    limit: int | None,
    labels_left_out: Mapping[str, int],
    commit: str,
    seconds: float,
) -> dict[str, Any]:
    """How the figures came about."""
    return circumstances(commit, seconds) | {
        "data": without_folder(data),
        "validation": None if validation is None else without_folder(validation),
        "limit": limit,
        "labels_left_out": dict(labels_left_out),
    }


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.table import Column, Table

    table = Table(Column("model", overflow="fold"), "approach", "exact, %", "1-off, %")
    for row in record["records"]:
        figures = ("{value:.1f} ({low:.1f} to {high:.1f})".format(**row[key]) for key in ("exact", "one_off"))
        table.add_row(row["model"], row["approach"], *figures)
    screen = console()
    screen.print(table)
    if not record["comparable"]:
        screen.print(
            f"[red]not comparable[/]: {100 * record['left_out_share']:.1f} % of the faces were left out"
        )
    screen.print(f"{shown(out / 'index.html')}  [bold]{shown(out / 'report.json')}[/]")
