"""FamilyService: sets families, and shows which member answers."""

from control_plane.caller import CallContext, principal_of
from control_plane.convert.rollout.aliases import alias_key_in, why_in
from control_plane.convert.rollout.families import family_in, family_out
from control_plane.convert.versions import key_out
from control_plane.rollout.family_orders import FamilyOrder, FamilyOrders
from control_plane.routing.families.chooser import FamilyChooser, Looked
from control_plane.types.rollout.alias import Alias
from control_plane.types.version import ModelVersion
from control_plane.view.view import View
from yolopool.errors import AliasNotFound
from yolopool.names import ModelRef
from yolopool.v1 import families_pb2, families_pb2_grpc


class FamilyService(families_pb2_grpc.FamilyServiceServicer):
    def __init__(self, view: View, orders: FamilyOrders, families: FamilyChooser) -> None:
        self._view = view
        self._orders = orders
        self._families = families

    async def SetFamily(
        self, request: families_pb2.SetFamilyRequest, context: CallContext
    ) -> families_pb2.SetFamilyResponse:
        order = FamilyOrder(
            family_in(request.family),
            principal_of(context).name,
            why_in(request.why),
            request.expected_revision if request.HasField("expected_revision") else None,
            not request.no_load,
        )
        alias = await self._orders.set(alias_key_in(request.alias), order)
        return families_pb2.SetFamilyResponse(family=self._status(alias))

    async def GetFamily(
        self, request: families_pb2.GetFamilyRequest, context: CallContext
    ) -> families_pb2.GetFamilyResponse:
        key = alias_key_in(request.alias)
        alias = self._view.catalogue.alias(ModelRef(key.model, alias=key.name))
        if alias.family is None:
            raise AliasNotFound(f"{key} is no family: it means versions of {key.model}")
        return families_pb2.GetFamilyResponse(family=self._status(alias))

    def _status(self, alias: Alias) -> families_pb2.FamilyStatus:
        family = alias.family
        assert family is not None, "it is one"
        members, until = self._families.look(alias)
        return families_pb2.FamilyStatus(
            alias=str(alias.key),
            family=family_out(family),
            members=[_member_out(one) for one in members],
            task=family.task,
            revision=alias.revision,
            until_unix_s=until,
        )


def _member_out(member: Looked) -> families_pb2.FamilyMemberStatus:
    means = member.means
    if not isinstance(means, ModelVersion):
        return families_pb2.FamilyMemberStatus(left_out=means.error.message)
    return families_pb2.FamilyMemberStatus(
        version=key_out(means.key),
        loaded=member.loaded,
        answer_ms=(member.answer_s or 0.0) * 1000,
        first_choice=member.is_first,
    )
