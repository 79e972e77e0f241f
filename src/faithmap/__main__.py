"""``python -m faithmap``, the same as ``faithmap``."""

import sys

from faithmap.cli import main

if __name__ == "__main__":
    sys.exit(main())
