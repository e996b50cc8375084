"""Versions and what is set of them, between proto and types: `_in` decodes, `_out` encodes.

Translation only: `validation` checks a message before it is decoded.
"""

from dataclasses import fields
from hashlib import sha256

from control_plane.convert.rules import validation_out
from control_plane.convert.validation import (
    check_architecture,
    check_metadata,
    check_placement,
    check_renamed,
    check_residency,
)
from control_plane.types.footprint import Footprint
from control_plane.types.lease import FencingToken
from control_plane.types.policy import (
    IDLE_RELEASE_S,
    BatchingConfig,
    Placement,
    Residency,
    ResidencyMode,
)
from control_plane.types.search.version_filter import VersionFilter
from control_plane.types.sources.source import Source
from control_plane.types.version import (
    Drift,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
)
from yolopool.labels import check_labels, parse_selector
from yolopool.server.arrival_rates import ArrivalRates
from yolopool.signing.signers import comment_of
from yolopool.v1 import importing_pb2, model_pb2, types_pb2
from yolopool.vocabulary import HeadMode, OutputLayout, Priority, ShapePolicy

# The field names are the same on both sides. What was not measured is unset there and None here.
_DRIFT_FIELDS = tuple(field.name for field in fields(Drift))

_SHAPE_POLICIES = {
    ShapePolicy.RECT: types_pb2.SHAPE_POLICY_RECT,
    ShapePolicy.SQUARE: types_pb2.SHAPE_POLICY_SQUARE,
}
_SHAPE_POLICIES_IN = {number: policy for policy, number in _SHAPE_POLICIES.items()}
_HEAD_MODES = {
    HeadMode.ONE_TO_MANY: types_pb2.HEAD_MODE_ONE_TO_MANY,
    HeadMode.END_TO_END: types_pb2.HEAD_MODE_END_TO_END,
}
_HEAD_MODES_IN = {number: mode for mode, number in _HEAD_MODES.items()}
_LAYOUTS = {
    OutputLayout.OBJECTNESS: types_pb2.OUTPUT_LAYOUT_OBJECTNESS,
    OutputLayout.PLAIN: types_pb2.OUTPUT_LAYOUT_PLAIN,
    OutputLayout.END_TO_END: types_pb2.OUTPUT_LAYOUT_END_TO_END,
    OutputLayout.PAIR: types_pb2.OUTPUT_LAYOUT_PAIR,
}
_LAYOUTS_IN = {number: layout for layout, number in _LAYOUTS.items()}
_RESIDENCY_MODES = {
    ResidencyMode.NORMAL: types_pb2.RESIDENCY_MODE_NORMAL,
    ResidencyMode.HOT_STANDBY: types_pb2.RESIDENCY_MODE_HOT_STANDBY,
    ResidencyMode.ON_DEMAND: types_pb2.RESIDENCY_MODE_ON_DEMAND,
}
_RESIDENCY_MODES_IN = {number: mode for mode, number in _RESIDENCY_MODES.items()}
PRIORITIES = {
    priority: types_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority
}
PRIORITIES_IN = {number: priority for priority, number in PRIORITIES.items()}


def key_in(key: types_pb2.VersionKey) -> VersionKey:
    return VersionKey(key.model, key.version)


def key_out(key: VersionKey) -> types_pb2.VersionKey:
    return types_pb2.VersionKey(model=key.model, version=key.number)


def token_in(token: types_pb2.FencingToken) -> FencingToken:
    return FencingToken(token.epoch, token.counter)


def token_out(token: FencingToken) -> types_pb2.FencingToken:
    return types_pb2.FencingToken(epoch=token.epoch, counter=token.counter)


def settings_in(settings: types_pb2.VersionSettings) -> VersionSettings:
    return VersionSettings(
        image_size=settings.image_size,
        confidence=settings.confidence if settings.HasField("confidence") else None,
        iou=settings.iou if settings.HasField("iou") else None,
        max_detections=settings.max_detections if settings.HasField("max_detections") else None,
        shape_policy=_SHAPE_POLICIES_IN.get(settings.shape_policy),
        head_mode=_HEAD_MODES_IN.get(settings.head_mode),
        output_layout=_LAYOUTS_IN.get(settings.output_layout),
        image_sizes=tuple(sorted({*settings.image_sizes} - {settings.image_size})),
        image_height=settings.image_height,
        image_width=settings.image_width,
    )


def settings_out(settings: VersionSettings) -> types_pb2.VersionSettings:
    policy, head = types_pb2.SHAPE_POLICY_UNSPECIFIED, types_pb2.HEAD_MODE_UNSPECIFIED
    if settings.head_mode is not None:
        head = _HEAD_MODES[settings.head_mode]
    layout = types_pb2.OUTPUT_LAYOUT_UNSPECIFIED
    if settings.output_layout is not None:
        layout = _LAYOUTS[settings.output_layout]
    if settings.shape_policy is not None:
        policy = _SHAPE_POLICIES[settings.shape_policy]
    return types_pb2.VersionSettings(
        image_size=settings.image_size,
        confidence=settings.confidence,
        iou=settings.iou,
        max_detections=settings.max_detections,
        shape_policy=policy,
        head_mode=head,
        output_layout=layout,
        image_sizes=settings.image_sizes,
        image_height=settings.image_height,
        image_width=settings.image_width,
    )


def residency_in(residency: types_pb2.Residency) -> Residency:
    """A field that is unset takes its default."""
    return Residency(
        mode=_RESIDENCY_MODES_IN.get(residency.mode, ResidencyMode.NORMAL),
        idle_release_s=residency.idle_release_s or IDLE_RELEASE_S,
        cpu_fallback=residency.cpu_fallback,
    )


def residency_out(residency: Residency) -> types_pb2.Residency:
    return types_pb2.Residency(
        mode=_RESIDENCY_MODES[residency.mode],
        idle_release_s=residency.idle_release_s,
        cpu_fallback=residency.cpu_fallback,
    )


def placement_in(placement: types_pb2.Placement) -> Placement:
    """A field that is unset takes its default."""
    return Placement(
        pool=placement.pool,
        labels=dict(placement.labels),
        max_replicas=placement.max_replicas,
        priority=PRIORITIES_IN.get(placement.priority, Priority.NORMAL),
    )


def placement_out(placement: Placement) -> types_pb2.Placement:
    return types_pb2.Placement(
        pool=placement.pool,
        labels=placement.labels,
        max_replicas=placement.max_replicas,
        priority=PRIORITIES[placement.priority],
    )


def rates_in(rates: types_pb2.Rates) -> ArrivalRates:
    return ArrivalRates(rates.fast, rates.middle, rates.slow)


def rates_out(rates: ArrivalRates) -> types_pb2.Rates:
    return types_pb2.Rates(fast=rates.fast, middle=rates.middle, slow=rates.slow)


def batching_in(batching: types_pb2.Batching) -> BatchingConfig:
    return BatchingConfig(
        batching.max_batch,
        tuple(batching.preferred_sizes),
        batching.max_delay_ms,
        batching.queue_capacity,
        batching.fixed,
        batching.p99_goal_ms,
    )


def batching_out(batching: BatchingConfig) -> types_pb2.Batching:
    return types_pb2.Batching(
        max_batch=batching.max_batch,
        preferred_sizes=batching.preferred_sizes,
        max_delay_ms=batching.max_delay_ms,
        queue_capacity=batching.queue_capacity,
        fixed=batching.fixed,
        p99_goal_ms=batching.p99_goal_ms,
    )


def footprint_in(footprint: types_pb2.Footprint) -> Footprint:
    return Footprint(
        weights_bytes=footprint.weights_bytes,
        workspace_bytes=footprint.workspace_bytes,
        private_bytes=footprint.private_bytes,
        max_batch=footprint.max_batch,
        swap_ms=footprint.swap_ms,
        fetch_ms=footprint.fetch_ms,
    )


def footprint_out(footprint: Footprint) -> types_pb2.Footprint:
    return types_pb2.Footprint(
        weights_bytes=footprint.weights_bytes,
        workspace_bytes=footprint.workspace_bytes,
        private_bytes=footprint.private_bytes,
        max_batch=footprint.max_batch,
        swap_ms=footprint.swap_ms,
        fetch_ms=footprint.fetch_ms,
    )


def version_out(version: ModelVersion) -> model_pb2.ModelVersion:
    """A version as the store has it; the caller adds its replicas, from the view."""
    answer = model_pb2.ModelVersion(
        version=key_out(version.key),
        state=model_pb2.VersionState.Value(f"VERSION_STATE_{version.state}"),
        progress=version.progress,
        step=version.step,
        reason=version.reason,
        message=version.message,
        artifact=version.artifact,
        source_name=version.source_name,
        settings=settings_out(version.settings),
        created_unix_s=version.created_unix_s,
        residency=residency_out(version.given.residency),
        placement=placement_out(version.given.placement),
        batching={kind: batching_out(config) for kind, config in version.given.batching.items()},
        served={kind: served_out(build, kind) for kind, build in version.given.served.items()},
        signer=version.given.signer,
        signed_comment=comment_of(version.given.signature) if version.given.signer else "",
        labels=version.given.labels,
        registered=registered_out(version),
    )
    if version.validation is not None:
        answer.validation.CopyFrom(validation_out(version.validation))
    if version.given.source is not None:
        answer.uri, answer.profile = version.given.source.uri, version.given.source.profile
    if version.given.build_of is not None:
        answer.build_of.CopyFrom(key_out(version.given.build_of))
    if version.pack is not None:
        answer.task = version.pack.task
        answer.class_names.extend(version.pack.class_names)
        answer.architecture = version.pack.architecture
        answer.weights_bytes = version.pack.weights_bytes
        answer.parameters = version.pack.parameters
        answer.warnings.extend(version.pack.warnings)
        answer.tried.extend(version.pack.tried)
        answer.pack = version.pack.digest
        answer.gflops = version.pack.gflops
        answer.artifact_bytes = version.pack.artifact_bytes
        answer.pack_bytes = version.pack.pack_bytes
        answer.training.update(version.pack.training)
    return answer


def registered_out(version: ModelVersion) -> model_pb2.Registered:
    """What it was registered with, less the texts, which may be long, and who did it."""
    given = version.given
    yaml = given.architecture_yaml
    return model_pb2.Registered(
        settings=settings_out(version.asked) if version.asked is not None else None,
        class_names=given.class_names,
        renamed_classes=given.renamed,
        architecture_sha256=sha256(yaml.encode()).hexdigest() if yaml else "",
        calibration=given.calibration,
    )


def filter_in(request: model_pb2.ListModelsRequest) -> VersionFilter:
    """Raises InvalidOption."""
    return VersionFilter(
        parse_selector(request.label_selector),
        request.task,
        tuple(request.class_names),
        request.artifact.lower(),
        request.dataset,
    )


def drift_in(drift: types_pb2.Drift) -> Drift:
    return Drift(**{field.name: value for field, value in drift.ListFields()})


def drift_out(drift: Drift) -> types_pb2.Drift:
    return types_pb2.Drift(**{name: getattr(drift, name) for name in _DRIFT_FIELDS})


def served_out(served: ServedBuild, device_kind: str) -> model_pb2.ServedVariant:
    answer = model_pb2.ServedVariant(
        variant=types_pb2.Variant(
            backend=served.backend, precision=served.precision, device_kind=device_kind
        ),
        pack=served.pack.digest if served.pack is not None else "",
    )
    checks = (served.checks[name] for name in sorted(served.checks))
    answer.checks.extend(drift_out(one) for one in checks)
    answer.unchecked = served.unchecked
    if served.drift is not None:
        answer.drift.CopyFrom(drift_out(served.drift))
    return answer


def pack_in(pack: importing_pb2.ImportedPack) -> Pack:
    return Pack(
        digest=pack.digest,
        architecture=pack.architecture,
        task=pack.task,
        class_names=tuple(pack.class_names),
        weights_bytes=pack.weights_bytes,
        activation_bytes_per_megapixel=pack.activation_bytes_per_megapixel,
        parameters=pack.parameters,
        warnings=tuple(pack.warnings),
        gflops=pack.gflops,
        artifact_bytes=pack.artifact_bytes,
        pack_bytes=pack.pack_bytes,
        backend="" if pack.backend == "torch" else pack.backend,
        precision=pack.precision,
        tried=tuple(pack.tried),
        training=dict(pack.training),
    )


def serving_spec_in(request: model_pb2.RegisterModelRequest, newest: ServingSpec) -> ServingSpec:
    """What a registration gives beside the file and its settings. Raises InvalidOption.

    `newest`: what the model's newest version was given. The new version inherits its batching, and
    its placement unless the request has one.
    """
    check_architecture(request.architecture_yaml, request.class_names)
    check_renamed(request.renamed_classes, request.class_names)
    return ServingSpec(
        residency_in(check_residency(request.residency)),
        request.architecture_yaml,
        tuple(request.class_names),
        placement_in(check_placement(request.placement))
        if request.HasField("placement")
        else newest.placement,
        newest.batching,
        renamed=dict(request.renamed_classes),
        metadata=check_metadata(request.metadata),
        signature=request.signature,
        labels=check_labels(request.labels),
        source=source_in(request),
    )


def source_in(request: model_pb2.RegisterModelRequest) -> Source | None:
    """Where the file is to be fetched; None: it was uploaded."""
    if not request.uri:
        return None
    return Source(request.uri, request.profile, request.artifact)
