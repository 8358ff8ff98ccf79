"""The `worldaction` command, and `python -m worldaction`: refuses where our packages are hidden, then does the verb."""

from __future__ import annotations

import sys
from importlib import import_module

from worldaction.errors import UserError
from worldaction.installation import refuse_hidden


def main() -> None:
    """Hand over to the package that joins all others, by its name: this one imports none of them."""
    try:
        refuse_hidden()
    except UserError as error:
        sys.exit(f"error: {error}")
    import_module("experiments.__main__").main()


if __name__ == "__main__":
    main()
