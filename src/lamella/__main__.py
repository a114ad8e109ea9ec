"""``python -m lamella``: the same as the command ``lamella``."""

from __future__ import annotations

from lamella.cli import main

if __name__ == "__main__":
    main()
