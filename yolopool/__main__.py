"""`python -m yolopool` is the command line."""

from yolopool.cli.main import main

if __name__ == "__main__":
    main()
