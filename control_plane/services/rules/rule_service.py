"""RuleService: gates of models, how many versions are kept, and what their files may take."""

import asyncio
from dataclasses import replace
from pathlib import Path

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.rules import check_store_rule, gate_in, rule_out
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.files.artifacts import FolderArtifacts, check_digest
from control_plane.store.rules.rule_state import RuleState
from control_plane.tenants.stored_bytes import StoredBytes
from control_plane.types.policy import Gate, ModelRule
from control_plane.types.version import Pack
from control_plane.validation.labelled_zip import open_zip, read_labelled
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import ArtifactNotFound
from yolopool.names import check_name
from yolopool.server.clock import Clock
from yolopool.v1 import rules_pb2, rules_pb2_grpc

log = structlog.get_logger()


class RuleService(rules_pb2_grpc.RuleServiceServicer):
    def __init__(
        self,
        registry: RuleState,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        stored: StoredBytes,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._stored = stored
        self._clock = clock

    async def SetGate(
        self, request: rules_pb2.SetGateRequest, context: CallContext
    ) -> rules_pb2.SetGateResponse:
        model, gate = check_name(request.model), None
        if request.HasField("gate"):
            gate = gate_in(request.gate)
            await self._check_data(model, check_digest(gate.data))
        self._check_count(model)
        now = self._clock.unix()
        rule = await self._registry.change_rule(model, lambda rule: _gated(rule, gate, now))
        await self._refresh()
        log.info("gate set", model=model, gate=str(gate), by=principal_of(context).name)
        return rules_pb2.SetGateResponse(rule=rule_out(rule))

    async def SetStoreRule(
        self, request: rules_pb2.SetStoreRuleRequest, context: CallContext
    ) -> rules_pb2.SetStoreRuleResponse:
        pattern = check_store_rule(request)
        self._check_count(pattern)
        changes = {field.name: value for field, value in request.ListFields()}
        del changes["pattern"]
        rule = await self._registry.change_rule(pattern, lambda rule: replace(rule, **changes))
        await self._refresh()
        log.info("store rule set", pattern=pattern, **changes, by=principal_of(context).name)
        return rules_pb2.SetStoreRuleResponse(rule=rule_out(rule, self._stored.used(rule)))

    async def ListRules(
        self, request: rules_pb2.ListRulesRequest, context: CallContext
    ) -> rules_pb2.ListRulesResponse:
        rules = self._view.desired.rules
        return rules_pb2.ListRulesResponse(
            rules=[rule_out(rules[p], self._stored.used(rules[p])) for p in sorted(rules)]
        )

    async def _check_data(self, model: str, data: str) -> None:
        """Raises ArtifactNotFound, InvalidOption, TenantStore, StoreQuota."""
        if not self._artifacts.touch(data):
            raise ArtifactNotFound(f"artifact {data} is not in the store: upload the zip first")
        self._stored.check_model(model, data)
        default = self._view.catalogue.default(model)
        pack = default.pack if default is not None else None
        path = self._artifacts.path(data)
        await asyncio.to_thread(_check_zip, path, pack)

    def _check_count(self, pattern: str) -> None:
        rules = self._view.desired.rules
        if pattern not in rules:
            check_room(rules, bounds.MAX_RULES, "rules")


def _check_zip(path: Path, pack: Pack | None) -> None:
    with open_zip(path) as archive:
        read_labelled(archive, pack)


def _gated(rule: ModelRule, gate: Gate | None, now: float) -> ModelRule:
    if gate is None:
        return replace(rule, gate=None)
    since = rule.gate.since_unix_s if rule.gate is not None else now
    return replace(rule, gate=replace(gate, since_unix_s=since))
