"""`python -m control_plane`: settings, then the app."""

import sys

from yolopool.server import process


def run() -> int:
    process.begin()
    from control_plane.serving import main
    from control_plane.settings import read_settings

    return main(read_settings())


if __name__ == "__main__":
    sys.exit(run())
