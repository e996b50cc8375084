"""What a process notes for the ones that are forked from it."""

import gc

from yolopool.forks import Forks


class Open:
    """Stands for an open client: anything that can be held."""


def test_a_client_that_nobody_closed_is_not_kept() -> None:
    forks, held = Forks(), Open()
    forks.opened(held)
    assert len(forks._async_clients) == 1
    del held
    gc.collect()
    assert not forks._async_clients
