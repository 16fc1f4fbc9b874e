"""The main job on two public-domain portraits: rate a viewer, hide every face of a picture, draw the sheet.

python examples/demo.py --out demo
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).parent))
ASTRONAUT, HOPPER = HERE / "astronaut.jpg", HERE / "grace_hopper.jpg"


def run(*arguments: str | Path) -> None:
    """Show a command, run it, and stop the demo if it fails."""
    words = ["ageveil", *(str(argument) for argument in arguments)]
    print(f"\n$ {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "ageveil", *words[1:]], check=False).returncode
    if code:
        sys.exit(code)


def main(out: Path) -> None:
    """Run the commands that the README shows and name the pictures to look at."""
    out.mkdir(parents=True, exist_ok=True)
    run(
        "rate", ASTRONAUT, "--board", "mpa", "--rating", "R", "--save-anonymized", out / "seen.png", "--force"
    )
    run("estimate", HOPPER, "--approach", "mask")
    run("anonymize", ASTRONAUT, HOPPER, "--out", out / "hidden", "--force")
    run("sheet", ASTRONAUT, "--out", out / "sheet.png", "--force")
    print(f"\nLook at {out}/seen.png (all that the estimator saw), {out}/hidden/ and {out}/sheet.png.")


if __name__ == "__main__":
    main(Path(sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else "demo"))
