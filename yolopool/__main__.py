"""`python -m yolopool` is the command line."""

from yolopool.cli import main

if __name__ == "__main__":
    main()
