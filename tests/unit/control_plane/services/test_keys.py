"""Making keys where there are many: what ended long ago makes room, joined processes take none."""

from types import SimpleNamespace
from typing import Any

import pytest

from control_plane.services import keys
from control_plane.services.keys import ENDED_KEPT_S, KeyService
from control_plane.types.access.api_key import ApiKey, Joining, Role
from yolopool.errors import InvalidOption
from yolopool.v1 import keys_pb2

NOW = 1e9


class Kept:
    """A registry of keys that is its own view."""

    def __init__(self, *held: ApiKey) -> None:
        self.api_keys = {key.id: key for key in held}

    @property
    def desired(self) -> "Kept":
        return self

    async def put_api_key(self, key: ApiKey) -> None:
        self.api_keys[key.id] = key

    async def drop_api_key(self, id_: str) -> None:
        del self.api_keys[id_]

    async def refresh(self) -> bool:
        return True


def a_key(id_: str, **changes: Any) -> ApiKey:
    return ApiKey(id_, "", "", Role.DETECT, ("*",), (), NOW, **changes)


async def made(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The ids of the keys after one more, of two that there may be."""
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    clock: Any = SimpleNamespace(unix=lambda: NOW)
    registry: Any = kept
    service = KeyService(registry, registry, kept.refresh, clock)
    request = keys_pb2.CreateKeyRequest(role=keys_pb2.ROLE_DETECT)
    answer = await service.CreateKey(request, SimpleNamespace())
    assert answer.key.id in kept.api_keys
    return set(kept.api_keys) - {answer.key.id}


async def test_keys_that_ended_long_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = a_key("ended", revoked_unix_s=NOW - ENDED_KEPT_S - 1)
    assert await made(Kept(a_key("a"), ended), monkeypatch) == {"a"}
    with pytest.raises(InvalidOption):
        await made(Kept(a_key("a"), a_key("b", revoked_unix_s=NOW)), monkeypatch)


async def test_processes_that_joined_take_no_room_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = [a_key(name, joins=Joining(Role.WORKER, name)) for name in ("w-1", "w-2")]
    assert await made(Kept(*joined), monkeypatch) == {"w-1", "w-2"}
