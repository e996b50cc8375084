"""Who may call which method, and about which models: one rule a method. Pure.

A method without a rule is refused to everyone, and a test fails.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from control_plane.types.access.api_key import Role, is_granted
from yolopool.names import base_name

ALL = ("*",)


class About(StrEnum):
    """Which models a method concerns, and so what must be granted."""

    NOTHING = "nothing"
    MODEL = "model"  # those that the request names
    SOME = "some"  # those that are granted: the answer has no others
    FLEET = "fleet"  # all: a pattern must be *


Named = Callable[[Any], Iterable[str]]
# The names of the models that may answer in place of a reference: of a family those of its members.
Behind = Callable[[str], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`models`: the references in a request, of MODEL. `alone`: the answer can name no other model,
    and is not searched for one. `streamed`: each message of a stream is asked for its models.
    """

    role: Role
    about: About = About.NOTHING
    models: Named = lambda _: ()
    alone: bool = False
    streamed: bool = False


def _model(request: Any) -> Iterable[str]:
    return (request.model,)


def _name(request: Any) -> Iterable[str]:
    return (request.name,)


def _alias(request: Any) -> Iterable[str]:
    return (request.alias,)


def _model_name(request: Any) -> Iterable[str]:
    return (request.model_name,)


def _opening(message: Any) -> Iterable[str]:
    return (message.opening.model,) if message.HasField("opening") else ()


def _changeover(change: Any) -> Iterable[str]:
    return (*(preparation.model for preparation in change.prepare), *change.release)


def _family(request: Any) -> Iterable[str]:
    return (request.alias, *(member.model for member in request.family.members))


def _schedule(request: Any) -> Iterable[str]:
    return _changeover(request.schedule.change)


_V1 = "/yolopool.v1."
_WORKERS = Rule(Role.WORKER)
_NATIVE: Mapping[str, Rule] = {
    _V1 + method: rule
    for method, rule in {
        "DetectionService/Detect": Rule(Role.DETECT, About.MODEL, _model, alone=True),
        "DetectionService/DetectStream": Rule(
            Role.DETECT, About.MODEL, _opening, alone=True, streamed=True
        ),
        "ModelService/ListModels": Rule(Role.DETECT, About.SOME),
        "ModelService/GetModel": Rule(Role.DETECT, About.MODEL, _model),
        "ModelService/UploadArtifact": Rule(Role.OPERATE),
        "ModelService/RegisterModel": Rule(Role.OPERATE, About.MODEL, _name),
        "ModelService/DeleteModel": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/LoadModel": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/UnloadModel": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/SetResidency": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/SetLabels": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/SetPlacement": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/SetBatching": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/BuildModel": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/SetVariant": Rule(Role.OPERATE, About.MODEL, _model),
        "ModelService/Changeover": Rule(Role.OPERATE, About.MODEL, _changeover),
        "ModelService/SweepStore": Rule(Role.ADMIN, About.FLEET),
        "RuleService/SetGate": Rule(Role.OPERATE, About.MODEL, _model),
        "RuleService/SetStoreRule": Rule(Role.ADMIN, About.FLEET),
        "RuleService/ListRules": Rule(Role.OPERATE, About.FLEET),
        "ScheduleService/SetSchedule": Rule(Role.OPERATE, About.MODEL, _schedule),
        "ScheduleService/ListSchedules": Rule(Role.OPERATE, About.FLEET),
        "ScheduleService/GetSchedule": Rule(Role.OPERATE, About.FLEET),
        "ScheduleService/DeleteSchedule": Rule(Role.OPERATE, About.FLEET),
        "WatchService/SetWatch": Rule(Role.OPERATE, About.FLEET),
        "WatchService/ListWatches": Rule(Role.OPERATE, About.FLEET),
        "WatchService/DeleteWatch": Rule(Role.OPERATE, About.FLEET),
        "ExplainService/PlanLoad": Rule(Role.OPERATE, About.FLEET),
        "ExplainService/ExplainModel": Rule(Role.OPERATE, About.MODEL, _model),
        "ExplainService/ExplainRequest": Rule(Role.DETECT, About.SOME),
        "BenchService/BenchModel": Rule(Role.OPERATE, About.MODEL, _model),
        "EventService/WatchEvents": Rule(Role.OPERATE, About.SOME),
        "FleetService/ListWorkers": Rule(Role.OPERATE, About.FLEET),
        "FleetService/GetWorker": Rule(Role.OPERATE, About.FLEET),
        "FleetService/GetFleet": Rule(Role.OPERATE, About.FLEET),
        "FleetService/GetStatistics": Rule(Role.OPERATE, About.FLEET),
        "FleetService/DrainWorker": Rule(Role.ADMIN, About.FLEET),
        "ImportService/ClaimImport": _WORKERS,
        "ImportService/ReportImport": _WORKERS,
        "MembershipService/Join": _WORKERS,
        "MembershipService/Heartbeat": _WORKERS,
        "MembershipService/Leave": _WORKERS,
        "MembershipService/ReportExit": _WORKERS,
        "PeerService/WantVersion": Rule(Role.CONTROL_PLANE),
        "CertificateService/CreateJoinToken": Rule(Role.ADMIN, About.FLEET),
        "CertificateService/IssueCertificate": Rule(Role.JOIN),
        "CertificateService/RenewCertificate": _WORKERS,
        "CertificateService/ListCertificates": Rule(Role.ADMIN, About.FLEET),
        "CertificateService/RevokeCertificate": Rule(Role.ADMIN, About.FLEET),
        "KeyService/CreateKey": Rule(Role.ADMIN, About.FLEET),
        "KeyService/ListKeys": Rule(Role.ADMIN, About.FLEET),
        "KeyService/RotateKey": Rule(Role.ADMIN, About.FLEET),
        "KeyService/RevokeKey": Rule(Role.ADMIN, About.FLEET),
        "AliasService/GetAlias": Rule(Role.OPERATE, About.MODEL, _alias),
        "AliasService/ListAliases": Rule(Role.OPERATE, About.SOME),
        "AliasService/SetAlias": Rule(Role.OPERATE, About.MODEL, _alias),
        "AliasService/PromoteModel": Rule(Role.OPERATE, About.MODEL, _model),
        "AliasService/RollbackAlias": Rule(Role.OPERATE, About.MODEL, _alias),
        "AliasService/DeleteAlias": Rule(Role.OPERATE, About.MODEL, _alias),
        "RolloutService/StartRollout": Rule(Role.OPERATE, About.MODEL, _alias),
        "RolloutService/GetRollout": Rule(Role.OPERATE, About.MODEL, _alias),
        "RolloutService/ListRollouts": Rule(Role.OPERATE, About.SOME),
        "RolloutService/AbortRollout": Rule(Role.OPERATE, About.MODEL, _alias),
        # Images of any caller.
        "RolloutService/GetDisagreements": Rule(Role.ADMIN, About.MODEL, _alias),
        "FamilyService/SetFamily": Rule(Role.OPERATE, About.MODEL, _family),
        "FamilyService/GetFamily": Rule(Role.OPERATE, About.MODEL, _alias),
        "AlertService/ListAlerts": Rule(Role.OPERATE, About.FLEET),
        "AlertService/ListAlertRules": Rule(Role.OPERATE, About.FLEET),
        "AlertService/ResolveAlert": Rule(Role.OPERATE, About.FLEET),
        "AlertService/SilenceAlerts": Rule(Role.OPERATE, About.FLEET),
        "AlertService/ListSilences": Rule(Role.OPERATE, About.FLEET),
        "AlertService/EndSilence": Rule(Role.OPERATE, About.FLEET),
        "AlertService/SetAlertThreshold": Rule(Role.OPERATE, About.FLEET),
        # What they are told leaves the pool.
        "AlertService/SetWebhook": Rule(Role.ADMIN, About.FLEET),
        "AlertService/ListWebhooks": Rule(Role.ADMIN, About.FLEET),
        "AlertService/DeleteWebhook": Rule(Role.ADMIN, About.FLEET),
        "AlertService/TestWebhook": Rule(Role.ADMIN, About.FLEET),
        "TenantService/SetTenant": Rule(Role.ADMIN, About.FLEET),
        "TenantService/ListTenants": Rule(Role.ADMIN, About.FLEET),
        "TenantService/GetUsage": Rule(Role.ADMIN, About.FLEET),
        "TenantService/DeleteTenant": Rule(Role.ADMIN, About.FLEET),
    }.items()
}
# The protocol of KServe. Load and unload are native calls inside, which are asked again.
_LOOK = Rule(Role.DETECT)
_KSERVE: Mapping[str, Rule] = {
    "/inference.GRPCInferenceService/" + method: rule
    for method, rule in {
        "ServerMetadata": _LOOK,
        "ModelReady": Rule(Role.DETECT, About.MODEL, _name, alone=True),
        "ModelMetadata": Rule(Role.DETECT, About.MODEL, _name, alone=True),
        "ModelConfig": Rule(Role.DETECT, About.MODEL, _name, alone=True),
        "ModelInfer": Rule(Role.DETECT, About.MODEL, _model_name, alone=True),
        # Each message is a ModelInfer, and asked as one.
        "ModelStreamInfer": Rule(Role.DETECT, alone=True),
        # Made of what a native call gave this caller.
        "ModelStatistics": Rule(Role.DETECT, About.SOME, alone=True),
        "RepositoryIndex": Rule(Role.DETECT, About.SOME, alone=True),
        "RepositoryModelLoad": Rule(Role.OPERATE, About.MODEL, _model_name),
        "RepositoryModelUnload": Rule(Role.OPERATE, About.MODEL, _model_name),
        **{
            f"{memory}SharedMemory{verb}": _LOOK
            for memory in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        },
        "TraceSetting": _LOOK,
        "LogSettings": _LOOK,
    }.items()
}
# What they tell is the protos.
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection"
RULES: Mapping[str, Rule] = {
    **_NATIVE,
    **_KSERVE,
    f"{REFLECTION}/ServerReflectionInfo": Rule(Role.DETECT, alone=True),
}

# By HTTP, what no method stands behind. Every other path needs PAGE, and then what its method does.
PAGE = Rule(Role.DETECT)
PAGES: Mapping[str, Rule] = {
    "/": Rule(Role.OPERATE, About.FLEET),
    # It names every model. A scraper needs no more than to look.
    "/metrics": Rule(Role.DETECT, About.FLEET),
    "/console/stream": Rule(Role.OPERATE, About.FLEET),
    "/console/findings": Rule(Role.OPERATE, About.FLEET),
}
# What answers everyone: health, which names no model without a key.
OPEN = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
        "/livez",
        "/readyz",
        "/healthz",
        "/v2/health/live",
        "/v2/health/ready",
    }
)


def page_rule(path: str) -> Rule:
    """The rule of a path of HTTP."""
    return PAGES.get(path, PAGE)


class Verdict(StrEnum):
    """Whether a caller may go on, and if not what to say."""

    ALLOWED = "allowed"
    ROLE_NEEDED = "role needed"
    GRANT_NEEDED = "grant needed"
    HIDDEN = "hidden"  # as if the model did not exist


def judged(
    rule: Rule, role: Role, grants: tuple[str, ...], request: Any, behind: Behind = lambda _: ()
) -> tuple[Verdict, str]:
    """The verdict, and of HIDDEN the name that is asked for and not seen. request: None before the
    first message of a stream.
    """
    if not role.allows(rule.role):
        return Verdict.ROLE_NEEDED, ""
    if rule.about is About.FLEET and grants != ALL:
        return Verdict.GRANT_NEEDED, ""
    if rule.about is About.MODEL and grants != ALL and request is not None:
        for reference in rule.models(request):
            name = name_of(reference)
            if not all(is_granted(grants, one) for one in (name, *behind(reference))):
                return Verdict.HIDDEN, name
    return Verdict.ALLOWED, ""


def name_of(reference: str) -> str:
    """The model's name in a reference, which need not be a valid one; of a build, its model's."""
    return base_name(reference.partition("@")[0].partition(":")[0])
