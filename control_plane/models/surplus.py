"""Deletes versions beyond as many of the newest as a rule keeps of each model."""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.models.references import references
from control_plane.models.registration import Registration
from control_plane.types.desired import Desired
from control_plane.types.policy import kept_versions
from control_plane.types.version import ModelVersion, VersionState
from control_plane.view.catalogue import Catalogue
from control_plane.view.view import View
from yolopool.errors import NotFound, YolopoolError
from yolopool.names import ModelRef, is_build

log = structlog.get_logger()

PERIOD_S = 30.0
_ENDED = (VersionState.READY, VersionState.FAILED)
BY = "keep_versions"


def surplus(desired: Desired, catalogue: Catalogue) -> list[ModelVersion]:
    """The versions that may go: none that something refers to or anybody wants loaded, none that
    the bare name means, and none whose import has not ended. One whose import failed is not
    counted.
    """
    found = []
    rules = [rule for rule in desired.rules.values() if rule.keep_versions]
    for model, versions in catalogue.models.items() if rules else ():
        keep = 0 if is_build(model) else kept_versions(rules, model)
        ready = [one for one in versions if one.state is VersionState.READY]
        if not keep or len(ready) <= keep:
            continue
        oldest_kept, default = ready[keep - 1].key.number, catalogue.default(model)
        found += [
            one
            for one in versions
            if one.key.number < oldest_kept
            and one.state in _ENDED
            and one != default
            and _is_free(desired, one)
        ]
    return found


def _is_free(desired: Desired, version: ModelVersion) -> bool:
    if desired.want(version.key) is not None:
        return False
    held = references(desired, [version.key])
    return not (held.aliases or held.pins or held.changed)


class SurplusKeeper:
    """Every control plane runs it, and only the leader acts. What it deletes is an event like any
    deletion, by `keep_versions`.
    """

    def __init__(
        self, view: View, registration: Registration, is_leader: Callable[[], bool]
    ) -> None:
        self._view = view
        self._registration = registration
        self._is_leader = is_leader

    async def run(self) -> None:
        """Does not return."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.step()
            except YolopoolError as error:
                log.info("versions beyond the rule wait", why=error.message)
            except Exception:
                log.exception("deleting versions beyond a rule failed: this is a bug")

    async def step(self) -> None:
        """Deletes one after the other: what refers to a version may change meanwhile."""
        if not self._view.is_loaded or not self._is_leader():
            return
        for version in surplus(self._view.desired, self._view.catalogue):
            if version.key in self._view.desired.versions and _is_free(self._view.desired, version):
                key = version.key
                try:
                    await self._registration.delete(ModelRef(key.model, key.number), BY)
                except NotFound:
                    continue
