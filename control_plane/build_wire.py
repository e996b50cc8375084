"""Between protos and the nouns of `fleet` for builds. Translation only."""

from dataclasses import fields

from control_plane.types.desired import Drift, Served
from yolopool.v1 import model_pb2, types_pb2

# The words are the same on both sides; what was not measured is absent there and None here.
_FIELDS = tuple(field.name for field in fields(Drift))


def drift_in(drift: types_pb2.Drift) -> Drift:
    return Drift(**{field.name: value for field, value in drift.ListFields()})


def drift_out(drift: Drift) -> types_pb2.Drift:
    return types_pb2.Drift(**{name: getattr(drift, name) for name in _FIELDS})


def served_out(served: Served, device_kind: str) -> model_pb2.ServedVariant:
    answer = model_pb2.ServedVariant(
        variant=types_pb2.Variant(
            backend=served.backend, precision=served.precision, device_kind=device_kind
        ),
        pack=served.pack.digest if served.pack is not None else "",
    )
    if served.drift is not None:
        answer.drift.CopyFrom(drift_out(served.drift))
    return answer
