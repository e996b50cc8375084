"""Families between proto and types, with the checks of their messages."""

from control_plane.convert.schedules import place_out
from control_plane.types.moments.cron import zone_of
from control_plane.types.moments.sun import Place
from control_plane.types.rollout.family import Family, Member, check_family
from yolopool.names import parse_ref
from yolopool.v1 import families_pb2


def family_in(family: families_pb2.Family) -> Family:
    """Raises InvalidFamily, InvalidSchedule, InvalidModelReference."""
    zone_of(family.time_zone)
    place = None
    if family.HasField("place"):
        place = Place(family.place.latitude, family.place.longitude)
    read = Family(
        tuple(Member(str(parse_ref(one.model)), one.begins.strip()) for one in family.members),
        family.within_s,
        family.time_zone,
        place,
    )
    check_family(read)
    return read


def family_out(family: Family) -> families_pb2.Family:
    return families_pb2.Family(
        members=[
            families_pb2.FamilyMember(model=member.model, begins=member.begins)
            for member in family.members
        ],
        within_s=family.within_s,
        time_zone=family.time_zone,
        place=place_out(family.place) if family.place is not None else None,
    )
