"""Whether callers are asked who they are: the interceptors for that, and the first key."""

from pathlib import Path

import structlog

from control_plane.identity import admin_key
from control_plane.identity.audit import Audit, stand_of
from control_plane.identity.authentication import Authentication
from control_plane.identity.keyring import Keyring
from control_plane.settings import Settings
from control_plane.store.registry import DesiredState
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable
from yolopool.server.clock import Clock

log = structlog.get_logger()

# In the data directory.
ADMIN_KEY = "admin.key"


class Guard:
    """`interceptors` go before all others; call `open` once desired state was read."""

    def __init__(
        self, settings: Settings, registry: DesiredState, view: View, refresh: Refresh, clock: Clock
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock

    @property
    def is_on(self) -> bool:
        return self._settings.auth == "keys"

    def interceptors(self) -> list[Authentication]:
        if not self.is_on:
            return []
        view = self._view
        keyring = Keyring(lambda: view.desired.api_keys, self._clock.unix)
        audit = Audit(lambda name: stand_of(view, name))
        return [
            Authentication(keyring, lambda: view.catalogue.models, audit, self._settings.reflection)
        ]

    async def open(self) -> None:
        """Makes the first admin's key valid. A failure is logged: other keys go on."""
        if not self.is_on:
            return
        try:
            if await admin_key.ensure(self._path, self._registry, self._view, self._clock.unix()):
                await self._refresh()
        except RegistryUnavailable:
            log.info("the admin's key can't be stored now: restart once the registry answers")
        except (OSError, ValueError) as error:
            log.error("the admin's key can't be read or made", why=str(error))

    @property
    def _path(self) -> Path:
        return self._settings.admin_key_file or self._settings.data_dir / ADMIN_KEY
