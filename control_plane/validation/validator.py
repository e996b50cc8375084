"""The loop that evaluates versions for the gates of their models: find one that waits, evaluate it,
keep the result with it.

Every control plane runs it, and only the leader acts. It remembers nothing that must survive: what
is evaluated already, the versions say.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.models.loading import Loader
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.rules.rule_state import RuleState
from control_plane.types.desired import WantSource
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.policy import Gate, GateState, Validation
from control_plane.types.version import ModelVersion
from control_plane.validation.agenda import Case, due
from control_plane.validation.evaluator import Evaluator
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import (
    ArtifactNotFound,
    InvalidArgument,
    RegistryUnavailable,
    StaleToken,
    StorageFailed,
    YolopoolError,
)
from yolopool.server.clock import Clock

log = structlog.get_logger()

TICK_S = 1.0
RETRY_S, MAX_RETRY_S = 5.0, 300.0


@dataclass(slots=True)
class _Attempt:
    """How often an evaluation could not be made, and for which reason last."""

    failures: int = 0
    reason: str = ""


class Validator:
    """`token`: the leader's, while this control plane may act; None: it may not."""

    def __init__(
        self,
        registry: RuleState,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        evaluator: Evaluator,
        loader: Loader,
        recorder: EventRecorder,
        clock: Clock,
        token: Callable[[], FencingToken | None],
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._evaluator = evaluator
        self._loader = loader
        self._recorder = recorder
        self._clock = clock
        self._token = token
        # Of one term as the leader; times are monotonic.
        self._attempts: dict[Case, _Attempt] = {}
        self._not_before_s: dict[Case, float] = {}

    async def run(self) -> None:
        """Does not return."""
        while True:
            try:
                await self.step()
            except (RegistryUnavailable, StaleToken) as error:
                log.info("gates wait", why=error.message)
            except Exception:
                log.exception("evaluating a version for its gate failed: this is a bug")
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Evaluates one version, if one waits."""
        token = self._token()
        if token is None or not self._view.is_loaded:
            self._attempts.clear()
            self._not_before_s.clear()
            return
        models, now = self._view.catalogue.models, self._clock.monotonic()
        found = due(self._view.desired, models, self._not_before_s, now)
        if found is not None:
            await self._validate(*found, token)

    async def _validate(self, version: ModelVersion, gate: Gate, token: FencingToken) -> None:
        key = version.key
        was_wanted = self._view.desired.want(key) is not None
        log.info("gate: evaluation begins", version=str(key))
        try:
            result = await self._evaluated(version, gate)
        except RegistryUnavailable:
            raise
        except YolopoolError as error:
            self._back_off((key, gate.data), error)
            return
        await self._registry.note_validation(key, result, token)
        await self._refresh()
        self._tell(version, gate, result)
        is_failed = gate.state(result) is GateState.FAILED
        want = self._view.desired.want(key)
        if is_failed and not was_wanted and want is not None and want.source is WantSource.MISS:
            # Nobody is served by it: it leaves the room that its evaluation took.
            await self._loader.unload(key, wait=False, deadline_s=self._clock.monotonic())

    async def _evaluated(self, version: ModelVersion, gate: Gate) -> Validation:
        """Raises YolopoolError where another attempt may go well."""
        assert version.pack is not None, "a READY version has a pack"
        if not self._artifacts.touch(gate.data):
            raise ArtifactNotFound(
                f"the images of the gate of {version.key.model} are not in the store of this "
                "control plane: set the gate again, or give all control planes one folder"
            )
        path = self._artifacts.path(gate.data)
        try:
            return await self._evaluator.evaluate(version, version.pack, path, gate.data)
        except InvalidArgument as error:
            # The images are not of this model, or end its workers: no other attempt goes better.
            return Validation(
                gate.data, self._clock.unix(), reason=error.reason, message=error.message
            )
        except OSError as error:
            raise StorageFailed(f"the images of the gate can't be read: {error}") from error

    def _back_off(self, case: Case, error: YolopoolError) -> None:
        key, attempt = case[0], self._attempts.setdefault(case, _Attempt())
        wait_s = min(RETRY_S * 2 ** min(attempt.failures, 10), MAX_RETRY_S)
        self._not_before_s[case] = self._clock.monotonic() + wait_s
        attempt.failures += 1
        why = f"{error.reason}: {error.message}"
        log.warning("gate: evaluation will be tried again", version=str(key), why=why)
        if error.reason != attempt.reason:  # one event a reason, not one an attempt
            attempt.reason = error.reason
            message = f"could not be evaluated, and will be tried again: {error.message}"
            self._recorder.record(
                EventKind.VALIDATED, version=key, reason=error.reason, message=message
            )

    def _tell(self, version: ModelVersion, gate: Gate, found: Validation) -> None:
        is_failed = gate.state(found) is GateState.FAILED
        said = f"mAP50-95 {found.map50_95:.4f}, mAP50 {found.map50:.4f} on {found.images} images"
        message = gate.shortfall(found) if is_failed else f"passes its gate: {said}"
        log.info("gate: evaluated", version=str(version.key), result=message)
        self._recorder.record(
            EventKind.VALIDATED,
            version=version.key,
            reason="VALIDATION_FAILED" if is_failed else "",
            message=message,
        )
