"""Hangs, crashes, poison, callers who leave, SIGTERM under load: one pool bears all of it."""

import pytest

from tests.chaos import survival
from tests.chaos.conftest import PlayAll

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def test_callers_are_answered_while_workers_hang_and_crash(play_all: PlayAll) -> None:
    await play_all(survival.EVERY)
