"""AliasService: sets, promotes, rolls back, lists and deletes aliases."""

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.rollout.aliases import (
    alias_key_in,
    alias_name_in,
    alias_out,
    keep_in,
    targets_in,
    why_in,
    within_in,
)
from control_plane.convert.validation import check_request_id, deadline_of
from control_plane.rollout.alias_orders import DEFAULT_WITHIN_S, AliasOrders, Order
from control_plane.rollout.switch_controller import waits_for
from control_plane.types.rollout.alias import WHOLE, Alias, AliasKey, ChangeKind, Target, Targets
from control_plane.view.view import View
from yolopool.names import ModelRef, parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import aliases_pb2, aliases_pb2_grpc

log = structlog.get_logger()

# For a call without a deadline: a load may take minutes.
DEFAULT_WAIT_S = 600.0
_Asked = (
    aliases_pb2.SetAliasRequest | aliases_pb2.PromoteModelRequest | aliases_pb2.RollbackAliasRequest
)


class AliasService(aliases_pb2_grpc.AliasServiceServicer):
    def __init__(self, view: View, orders: AliasOrders, clock: Clock) -> None:
        self._view = view
        self._orders = orders
        self._clock = clock

    async def GetAlias(
        self, request: aliases_pb2.GetAliasRequest, context: CallContext
    ) -> aliases_pb2.GetAliasResponse:
        key = alias_key_in(request.alias)
        alias = self._view.catalogue.alias(ModelRef(key.model, alias=key.name))
        return aliases_pb2.GetAliasResponse(alias=self._full(alias))

    async def ListAliases(
        self, request: aliases_pb2.ListAliasesRequest, context: CallContext
    ) -> aliases_pb2.ListAliasesResponse:
        aliases = self._view.desired.aliases
        return aliases_pb2.ListAliasesResponse(
            aliases=[
                alias_out(aliases[key], with_history=False)
                for key in sorted(aliases)
                if key.model.startswith(request.name_prefix)
            ]
        )

    async def SetAlias(
        self, request: aliases_pb2.SetAliasRequest, context: CallContext
    ) -> aliases_pb2.SetAliasResponse:
        key, targets = alias_key_in(request.alias), targets_in(request.targets)
        alias = await self._move(key, targets, ChangeKind.SET, request, context)
        return aliases_pb2.SetAliasResponse(alias=self._full(alias))

    async def PromoteModel(
        self, request: aliases_pb2.PromoteModelRequest, context: CallContext
    ) -> aliases_pb2.PromoteModelResponse:
        ref = parse_ref(request.model)
        key = alias_name_in(ref.name, request.alias)
        targets = (Target(self._view.catalogue.ready(ref).key.number, WHOLE),)
        alias = await self._move(key, targets, ChangeKind.PROMOTE, request, context)
        return aliases_pb2.PromoteModelResponse(alias=self._full(alias))

    async def RollbackAlias(
        self, request: aliases_pb2.RollbackAliasRequest, context: CallContext
    ) -> aliases_pb2.RollbackAliasResponse:
        key, order = alias_key_in(request.alias), _order(request, context)
        log.info("rollback requested", alias=str(key), why=order.why, by=order.by)
        alias = await self._orders.roll_back(key, order)
        alias = await self._ended(alias, request.wait, context)
        return aliases_pb2.RollbackAliasResponse(alias=self._full(alias))

    async def DeleteAlias(
        self, request: aliases_pb2.DeleteAliasRequest, context: CallContext
    ) -> aliases_pb2.DeleteAliasResponse:
        key, by = alias_key_in(request.alias), principal_of(context).name
        expected = request.expected_revision if request.HasField("expected_revision") else None
        await self._orders.delete(key, Order(by, expected=expected))
        log.info("alias deleted", alias=str(key), by=by)
        return aliases_pb2.DeleteAliasResponse()

    async def _move(
        self,
        key: AliasKey,
        targets: Targets,
        kind: ChangeKind,
        request: aliases_pb2.SetAliasRequest | aliases_pb2.PromoteModelRequest,
        context: CallContext,
    ) -> Alias:
        order = _order(request, context)
        to = [target.version for target in targets]
        log.info("alias requested", alias=str(key), to=to, why=order.why, by=order.by)
        alias = await self._orders.move(key, targets, kind, order)
        return await self._ended(alias, request.wait, context)

    async def _ended(self, alias: Alias, wait: bool, context: CallContext) -> Alias:
        if not wait or alias.switch is None:
            return alias
        deadline_s = deadline_of(context, self._clock.monotonic(), DEFAULT_WAIT_S)
        return await self._orders.moved(alias.key, alias.switch.targets, deadline_s)

    def _full(self, alias: Alias) -> aliases_pb2.Alias:
        return alias_out(alias, waits_for(self._view, alias, self._clock.unix()))


def _order(request: _Asked, context: CallContext) -> Order:
    keep_s = expected_main = None
    if not isinstance(request, aliases_pb2.RollbackAliasRequest) and request.HasField("keep_s"):
        keep_s = keep_in(request.keep_s)
    if isinstance(request, aliases_pb2.PromoteModelRequest) and request.HasField(
        "expected_version"
    ):
        expected_main = request.expected_version
    return Order(
        principal_of(context).name,
        why_in(request.why),
        request.expected_revision if request.HasField("expected_revision") else None,
        expected_main,
        keep_s,
        within_in(request.within_s, DEFAULT_WITHIN_S),
        request.force,
        check_request_id(request.request_id),
        ungated=not isinstance(request, aliases_pb2.RollbackAliasRequest) and request.ungated,
    )
