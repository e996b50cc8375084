"""Events for as long as someone looks: a restart of the control plane is a pause, no end."""

import time
from collections.abc import Callable, Iterator, Sequence

from yolopool.client.client import Client
from yolopool.client.explanations import Event
from yolopool.errors import Unavailable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def follow(
    client: Client,
    *,
    last: int = 0,
    kinds: Sequence[str] = (),
    model: str = "",
    worker: str = "",
    away: Callable[[str], None],
) -> Iterator[Event]:
    """As `Client.events` with follow, and without end: after a break it goes on from the last
    event it saw. `away` hears once a break why. Raises Unavailable only if nothing answers at
    the start.
    """
    client.fleet()
    after, pause_s = "", FIRST_PAUSE_S
    while True:
        said = "the control plane stopped"
        try:
            for event in client.events(
                after=after, last=last, kinds=kinds, model=model, worker=worker, follow=True
            ):
                after, last, pause_s = event.id, 0, FIRST_PAUSE_S
                yield event
        except Unavailable as error:
            said = f"{error.reason}: {error.message}"
        if pause_s == FIRST_PAUSE_S:
            away(said)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
