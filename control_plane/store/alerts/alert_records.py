"""Alerts in the store, and what control planes tell each other of their series.

Not desired state: no revision is made. `MemoryAlertRecords` is the specification.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from control_plane.store.alerts.alert_codec import decode_state
from control_plane.types.lease import FencingToken
from yolopool.errors import StaleToken


class AlertRecords(Protocol):
    """A method raises RegistryUnavailable when the store does not answer in time."""

    async def tell(self, plane: str, text: str, drop: Collection[str] = ()) -> Mapping[str, str]:
        """Replaces what a control plane told, and forgets others; an empty text forgets its own.
        Returns what each told last, by its name.
        """
        ...

    async def states(self) -> Mapping[str, str]:
        """All alerts, by key."""
        ...

    async def put_states(
        self, changes: Mapping[str, str | None], token: FencingToken | None
    ) -> None:
        """Writes alerts by key; None: it is gone. Raises StaleToken if the token is not the
        lease's. Without a token, from a control plane that held on while nobody led, an alert
        replaces only an older one, and none goes.
        """
        ...


class MemoryAlertRecords:
    """`AlertRecords` in dictionaries. `holds`: whether a token is the lease's."""

    def __init__(self, holds: Callable[[FencingToken], bool]) -> None:
        self._holds = holds
        self._told: dict[str, str] = {}
        self._states: dict[str, str] = {}

    async def tell(self, plane: str, text: str, drop: Collection[str] = ()) -> Mapping[str, str]:
        for name in (plane, *drop):
            self._told.pop(name, None)
        if text:
            self._told[plane] = text
        return dict(self._told)

    async def states(self) -> Mapping[str, str]:
        return dict(self._states)

    async def put_states(
        self, changes: Mapping[str, str | None], token: FencingToken | None
    ) -> None:
        if token is not None and not self._holds(token):
            raise StaleToken(f"token {token} is not the lease's: another control plane leads")
        for key, text in changes.items():
            held = self._states.get(key)
            if token is not None and text is None:
                self._states.pop(key, None)
            elif text is not None and (token is not None or held is None or _newer(text, held)):
                self._states[key] = text


def _newer(text: str, held: str) -> bool:
    return decode_state(text).changed_unix_s > decode_state(held).changed_unix_s
