"""Whether callers are asked who they are: what the doors ask for that, and the first key."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import structlog

from control_plane.caller import ANONYMOUS, Principal
from control_plane.identity import admin_key
from control_plane.identity.access import REFLECTION, name_of, page_rule
from control_plane.identity.audit import Audit, stand_of
from control_plane.identity.authentication import Authentication
from control_plane.identity.gate import Gate, no_model
from control_plane.identity.keyring import Keyring
from control_plane.identity.oidc import issuer_file
from control_plane.identity.oidc.issuer_keys import IssuerKeys
from control_plane.identity.oidc.tokens import Tokens
from control_plane.settings import Settings
from control_plane.store.registry import DesiredState
from control_plane.types.access.api_key import is_granted
from control_plane.types.access.tenant import NOBODY
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, YolopoolError
from yolopool.server.clock import Clock
from yolopool.transport import is_loopback
from yolopool.v1 import model_pb2

log = structlog.get_logger()

# In the data directory.
ADMIN_KEY = "admin.key"
CONSOLE = "/console"
LOOK = "/yolopool.v1.ModelService/GetModel"


class Guard:
    """`interceptors` go before all others; call `open` once desired state was read. Where nobody
    is asked, everyone may do everything.

    Raises OSError and ValueError for a file of issuers that can't be used.
    """

    def __init__(
        self, settings: Settings, registry: DesiredState, view: View, refresh: Refresh, clock: Clock
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock
        self._all_names: frozenset[str] = frozenset()
        self._named_at = (-1, "")
        self._tokens = self._new_tokens()
        self._gate = self._new_gate() if settings.auth == "keys" else None

    def _new_tokens(self) -> Tokens | None:
        if self._settings.oidc is None:
            return None
        clock, issuers = self._clock, issuer_file.read(self._settings.oidc)
        return Tokens([IssuerKeys(one, clock.monotonic) for one in issuers], clock.unix)

    def _new_gate(self) -> Gate:
        view, settings = self._view, self._settings
        opened = [
            *(["/metrics"] if settings.open_metrics else []),
            *(["/docs", "/openapi.json"] if settings.open_docs else []),
            *([REFLECTION] if settings.open_reflection else []),
            # Its pages have nothing of the pool in them, and what fills them asks.
            CONSOLE,
        ]
        keyring = Keyring(lambda: view.desired.api_keys, self._clock.unix)
        audit = Audit(lambda name: stand_of(view, name))
        return Gate(
            keyring,
            self._names,
            audit,
            lambda: view.is_loaded,
            opened,
            self._tokens,
            lambda tenant: view.desired.tenants.get(tenant, NOBODY).pool,
            self._behind,
        )

    def _behind(self, reference: str) -> Iterable[str]:
        return self._view.catalogue.behind(reference)

    def _names(self) -> Collection[str]:
        """Those of all models, and of aliases whose model has no versions."""
        desired = self._view.desired
        if (desired.revision, desired.mark) != self._named_at:
            aliases = (alias.model for alias in desired.aliases)
            self._all_names = frozenset((*self._view.catalogue.models, *aliases))
            self._named_at = (desired.revision, desired.mark)
        return self._all_names

    @property
    def is_on(self) -> bool:
        return self._gate is not None

    def interceptors(self) -> list[Authentication]:
        return [Authentication(self._gate)] if self._gate is not None else []

    def is_open(self, path: str) -> bool:
        """Whether a path of HTTP answers everyone."""
        return self._gate is None or self._gate.is_open(path)

    async def visitor(self, path: str, context: Any) -> Principal:
        """Who asks for a path of HTTP, which may at least look at models. Raises what refuses it:
        CredentialsMissing, CredentialsInvalid, RoleNeeded, GrantNeeded.
        """
        if self._gate is None:
            return ANONYMOUS
        principal = await self._gate.identified(path, context)
        self._gate.allowed(path, principal, None, context, page_rule(path))
        return principal

    async def ask(self, method: str, request: Any, context: Any) -> None:
        """Raises what refuses a method that is not called through the interceptors."""
        if self._gate is not None:
            principal = await self._gate.identified(method, context)
            self._gate.allowed(method, principal, request, context)

    async def sees(self, reference: str, context: Any) -> bool:
        """Whether who calls may look at a model; without a key nobody."""
        try:
            await self.ask(LOOK, model_pb2.GetModelRequest(model=reference), context)
        except YolopoolError:
            return False
        return True

    def check_sees(self, reference: str, principal: Principal) -> None:
        """Raises ModelNotFound for a model that the caller may not see."""
        names = (name_of(reference), *self._behind(reference))
        if not all(is_granted(principal.grants, name) for name in names):
            raise no_model(name_of(reference))

    def veiled(self, error: YolopoolError, principal: Principal, name: str) -> YolopoolError:
        """What is told of an error about a model."""
        return error if self._gate is None else self._gate.veiled(error, principal, (name,))

    async def open(self) -> None:
        """Makes the first admin's key valid. A failure is logged: other keys go on."""
        if not self.is_on:
            self._warn_if_open()
            return
        if self._tokens is not None:
            self._tokens.warm()
        try:
            if await admin_key.ensure(self._path, self._registry, self._view, self._clock.unix()):
                await self._refresh()
        except RegistryUnavailable:
            log.info("the admin's key can't be stored now: restart once the registry answers")
        except (OSError, ValueError) as error:
            log.error("the admin's key can't be read or made", why=str(error))

    def _warn_if_open(self) -> None:
        """Encrypted or not: beyond this machine nobody is asked who calls."""
        hosts = (self._settings.host, self._settings.http_host)
        if not all(map(is_loopback, hosts)):
            log.warning(
                "WHO REACHES THIS CONTROL PLANE MAY DO EVERYTHING: nobody is asked for a key; "
                "start it with --auth keys",
                hosts=hosts,
            )

    @property
    def _path(self) -> Path:
        return self._settings.admin_key_file or self._settings.data_dir / ADMIN_KEY
