"""``python -m captum_pullback``."""

import sys

from captum_pullback.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
