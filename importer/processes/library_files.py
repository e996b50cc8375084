"""Whether the files of the libraries are still those that a prepared parent has imported."""

import os
from collections.abc import Iterator
from hashlib import sha256
from importlib.machinery import PathFinder

import importer
import yolopool
from yolopool.server.confinement import host_paths

_MODEL_LIBRARY = "ultralytics"


def fingerprint() -> str:
    """Another one after a package was installed, updated or removed, or a file of the model library
    or of ours was written. Takes some milliseconds, and imports nothing.

    Of other packages no file is looked at: an installer changes the folder that they are in, since
    it writes the folder of their metadata anew.
    """
    seen = sha256()
    for path in (*host_paths.installed(), *sorted(_sources())):
        try:
            about = os.stat(path)  # noqa: PTH116 - of a thousand files
        except OSError:
            continue
        seen.update(f"{path} {about.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _sources() -> Iterator[str]:
    # Not by what this process has imported: it has not imported the library.
    library = PathFinder.find_spec(_MODEL_LIBRARY)
    found = library.submodule_search_locations if library is not None else None
    for place in (*importer.__path__, *yolopool.__path__, *(found or ())):
        for folder, _, files in os.walk(place):
            yield from (f"{folder}/{file}" for file in files if file.endswith(".py"))
