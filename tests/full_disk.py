"""A disk that takes no more, for tests: no file of this process may grow beyond some bytes.

The system refuses such a write as it does on a full disk, with another number of the error.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(max_bytes: int = 0) -> Iterator[None]:
    """Files end at `max_bytes` inside the `with`."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
