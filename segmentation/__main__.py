"""``python -m segmentation`` is ``skipseg``: the form that launchers use, wherever scripts are installed."""

import sys

from segmentation.cli import main

if __name__ == "__main__":
    sys.exit(main())
