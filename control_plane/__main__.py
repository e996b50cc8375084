"""`python -m control_plane`: settings, then the app."""

import sys

from control_plane.app import main
from control_plane.settings import read_settings

if __name__ == "__main__":
    sys.exit(main(read_settings()))
