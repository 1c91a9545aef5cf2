"""``python -m onelip``, also for ``torchrun -m onelip``."""

import sys

from onelip.cli import main

if __name__ == "__main__":
    sys.exit(main())
