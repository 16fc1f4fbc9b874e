"""`python -m ageveil` is the command line."""

from ageveil.cli import main

if __name__ == "__main__":
    main()
