"""`ageveil boards`: the classification boards and their minimum ages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json

if TYPE_CHECKING:
    from ageveil.boards import Board
    from ageveil.types import Rating


def boards(
    board: Annotated[
        str | None, typer.Argument(help="Show the ratings of this board.", show_default=False)
    ] = None,
    rating: Annotated[
        str | None, typer.Option(help="Of this rating of the board ...", show_default=False)
    ] = None,
    in_terms_of: Annotated[
        str | None,
        typer.Option("--in", help="... the equivalents on that board.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """List the boards, the ratings of one, or what a rating is in another board's terms.

    `ageveil boards mpa --rating R --in pegi` tells what MPA R is in PEGI terms: the marks with the smallest
    minimum age that is not below its own.
    """
    from ageveil import boards as rooms

    if (rating is None) != (in_terms_of is None) or (rating is not None and board is None):
        raise ValueError(
            "a translation takes a board, --rating and --in, as in: boards mpa --rating R --in pegi"
        )
    known = rooms.load_boards()
    if board is None:
        _list(list(known.values()), as_json=as_json)
    elif rating is not None and in_terms_of is not None:
        _translate(rooms.get_rating(board, rating), in_terms_of, as_json=as_json)
    else:
        _ratings(rooms.get_board(board), as_json=as_json)
    return 0


def _list(known: list[Board], *, as_json: bool) -> None:
    if as_json:
        print_json([_record(board) for board in known])
        return
    from rich.table import Table

    table = Table("board", "region", "rates", "marks")
    for board in known:
        marks = " ".join(rating.mark for rating in board.ratings)
        table.add_row(board.key, board.region, board.medium, marks)
    console().print(table)


def _record(board: Board) -> dict[str, Any]:
    return {
        "board": board.key,
        "name": board.name,
        "region": board.region,
        "medium": board.medium,
        "standing": board.standing,
        "version": board.version,
        "reviewed": board.reviewed.isoformat(),
        "ratings": [asdict(rating) for rating in board.ratings],
    }


def _ratings(board: Board, *, as_json: bool) -> None:
    if as_json:
        print_json(_record(board))
        return
    out = console()
    out.print(
        f"[bold]{board.name}[/] ({board.key}), {board.region}: {board.medium}. Reviewed {board.reviewed}."
    )
    out.print(board.standing)
    out.print(_table(board.ratings))


def _table(ratings: tuple[Rating, ...]) -> Any:
    from rich.table import Table

    table = Table("rating", "minimum age", "kind", "beside an adult", "source")
    for rating in ratings:
        ages = [
            "-" if age is None else str(age) for age in (rating.minimum_age, rating.accompanied_minimum_age)
        ]
        table.add_row(rating.mark, ages[0], rating.kind, ages[1], rating.source)
    return table


def _translate(rating: Rating, board: str, *, as_json: bool) -> None:
    from ageveil import boards as rooms

    found = rooms.equivalents(rating, board)
    if as_json:
        print_json({"rating": asdict(rating), "equivalents": [asdict(entry) for entry in found]})
        return
    out = console()
    out.print(f"{rating.board.upper()} {rating.mark} ({rating.minimum_age}) on the board {board}:")
    out.print(_table(found) if found else "no rating is as strict")
