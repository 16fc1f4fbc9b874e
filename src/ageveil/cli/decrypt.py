"""`ageveil decrypt`: undo a cipher. Writes a bare face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ageveil.cli import options
from ageveil.cli.output import console, print_json, refuse_existing, shown


def decrypt(
    picture: Annotated[Path, typer.Argument(help="A picture that `anonymize` wrote with a cipher.")],
    key_file: Annotated[Path, typer.Option(help="The key that was used.")],
    out: Annotated[Path, typer.Option(help="Where the bare face is written; a lossless format.")],
    receipt: Annotated[
        Path | None, typer.Option(help="The receipts; by default beside the picture.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a result that exists.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Undo a cipher with its key and WRITE THE BARE FACE.

    DES gives back the very pixels, the permutation gives them back with the lowest bit set. A result that is
    noise, as from a wrong key, is refused.
    """
    from ageveil import ciphers, image, pipeline

    target = image.check_output(out, lossless=True)
    refuse_existing(target, force=force)
    key = ciphers.read_key_file(key_file)
    receipts = pipeline.load_receipts(receipt or pipeline.receipt_path(picture))
    pixels = pipeline.decrypt_picture(image.read_image(picture), receipts, key)
    image.write_image(target, pixels, lossless=True)
    if as_json:
        print_json({"photo": str(picture), "output": str(target), "regions": len(receipts)})
    elif not quiet:
        console().print(
            f"{shown(picture)} -> [bold]{shown(target)}[/]  [red]bare face[/], "
            f"{len(receipts)} region(s) undone"
        )
    return 0
