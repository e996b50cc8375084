"""RolloutService: starts, shows and aborts rollouts."""

from dataclasses import replace
from uuid import uuid4

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.rollout.aliases import alias_key_in, why_in
from control_plane.convert.rollout.rollouts import (
    classes_out,
    measure_out,
    plan_in,
    rollout_out,
    shadow_in,
    share_of,
    sizes_out,
)
from control_plane.events.recorder import EventRecorder
from control_plane.rollout.gathered import Gathered
from control_plane.rollout.rollout_controller import Rollouts, class_names_of, tell
from control_plane.store.registry import DesiredState
from control_plane.types.rollout.alias import WHOLE, Alias, Shadow, Target
from control_plane.types.rollout.progress import Outcome, Rollout
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import InvalidOption, RolloutNotFound, RolloutNotPossible
from yolopool.names import ModelRef
from yolopool.server.clock import Clock
from yolopool.v1 import rollouts_pb2, rollouts_pb2_grpc

log = structlog.get_logger()


class RolloutService(rollouts_pb2_grpc.RolloutServiceServicer):
    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        rollouts: Rollouts,
        gathered: Gathered,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._rollouts = rollouts
        self._gathered = gathered
        self._recorder = recorder
        self._clock = clock

    async def StartRollout(
        self, request: rollouts_pb2.StartRolloutRequest, context: CallContext
    ) -> rollouts_pb2.StartRolloutResponse:
        alias = self._alias(request.alias)
        plan, share = plan_in(request.plan), shadow_in(request.plan)
        if not request.candidate:
            raise InvalidOption("candidate is missing: give the version to go to")
        known = alias.rollout
        if known is not None and not known.settled and known.candidate == request.candidate:
            return rollouts_pb2.StartRolloutResponse(rollout=self._out(alias, known))
        _check(alias, request.candidate)
        candidate = self._view.catalogue.ready(ModelRef(alias.model, request.candidate))
        if plan.steps[-1]:  # it is to answer callers
            self._view.desired.check_gate(candidate.key)
        now, by = self._clock.unix(), principal_of(context).name
        fresh = Rollout(
            uuid4().hex[:12],
            alias.main,
            request.candidate,
            plan,
            by,
            why_in(request.why),
            now,
            now,
        )
        shadow = Shadow(request.candidate, share)
        held = await self._put(replace(alias, rollout=fresh, shadow=shadow))
        log.info("rollout started", alias=str(alias.key), candidate=request.candidate, by=by)
        tell(self._recorder, held, fresh)
        return rollouts_pb2.StartRolloutResponse(rollout=self._out(held, fresh))

    async def GetRollout(
        self, request: rollouts_pb2.GetRolloutRequest, context: CallContext
    ) -> rollouts_pb2.GetRolloutResponse:
        alias = self._alias(request.alias)
        rollout = _rollout(alias)
        answer = rollouts_pb2.GetRolloutResponse(rollout=self._out(alias, rollout))
        if not rollout.running:
            return answer
        decision, evidence = await self._rollouts.look(alias, rollout)
        answer.measures.extend(map(measure_out, decision.judgement.verdicts))
        answer.requests, answer.images = evidence.requests, evidence.images
        answer.waits_for.extend(decision.waits_for)
        answer.sizes.extend(sizes_out(evidence))
        names = class_names_of(self._view, alias, rollout)
        answer.classes.extend(classes_out(evidence, names))
        own = self._gathered.look(rollout.id)
        answer.dropped = own.dropped if own is not None else 0
        return answer

    async def ListRollouts(
        self, request: rollouts_pb2.ListRolloutsRequest, context: CallContext
    ) -> rollouts_pb2.ListRolloutsResponse:
        aliases = self._view.desired.aliases
        found = [
            self._out(aliases[key], rollout)
            for key in sorted(aliases)
            if key.model.startswith(request.name_prefix)
            and (rollout := aliases[key].rollout) is not None
        ]
        return rollouts_pb2.ListRolloutsResponse(rollouts=found)

    async def AbortRollout(
        self, request: rollouts_pb2.AbortRolloutRequest, context: CallContext
    ) -> rollouts_pb2.AbortRolloutResponse:
        alias, by = self._alias(request.alias), principal_of(context).name
        rollout = _rollout(alias)
        if rollout.running:
            why = why_in(request.why)
            reason = f"aborted by {by}" + (f": {why}" if why else "")
            rollout = rollout.ended(Outcome.ABORTED, (reason,), self._clock.unix())
            alias = await self._put(replace(alias, rollout=rollout))
            log.info("rollout aborted", alias=str(alias.key), by=by, why=why)
            tell(self._recorder, alias, rollout)
        return rollouts_pb2.AbortRolloutResponse(rollout=self._out(alias, rollout))

    async def GetDisagreements(
        self, request: rollouts_pb2.GetDisagreementsRequest, context: CallContext
    ) -> rollouts_pb2.GetDisagreementsResponse:
        own = self._gathered.look(_rollout(self._alias(request.alias)).id)
        return rollouts_pb2.GetDisagreementsResponse(
            disagreements=[
                rollouts_pb2.Disagreement(
                    encoded=one.encoded, stable=one.stable, candidate=one.candidate
                )
                for one in (own.images if own is not None else ())
            ]
        )

    def _alias(self, text: str) -> Alias:
        key = alias_key_in(text)
        return self._view.catalogue.alias(ModelRef(key.model, alias=key.name))

    async def _put(self, alias: Alias) -> Alias:
        held = await self._registry.put_alias(alias, alias.revision)
        await self._refresh()
        return held

    def _out(self, alias: Alias, rollout: Rollout) -> rollouts_pb2.Rollout:
        return rollout_out(alias.key, rollout, share_of(alias))


def _check(alias: Alias, candidate: int) -> None:
    """Raises RolloutNotPossible."""
    key = alias.key
    if alias.family is not None:
        raise RolloutNotPossible(f"{key} is a family: roll out an alias of a member's versions")
    if alias.rollout is not None and not alias.rollout.settled:
        raise RolloutNotPossible(
            f"{key} is being rolled out to {alias.rollout.candidate}: abort that first, or wait"
        )
    if alias.switch is not None:
        raise RolloutNotPossible(f"{key} is being switched: wait for that, or roll it back")
    if alias.targets != (Target(alias.main, WHOLE),):
        raise RolloutNotPossible(f"{key} means several versions: promote one of them first")
    if candidate == alias.main:
        raise RolloutNotPossible(f"{key} means version {candidate} already: give another")


def _rollout(alias: Alias) -> Rollout:
    if alias.rollout is None:
        raise RolloutNotFound(f"{alias.key} has had no rollout: start one")
    return alias.rollout
