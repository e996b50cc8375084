"""The table of routes: which path is which method. `uploads` and `event_stream` have the others."""

from fastapi import APIRouter

from control_plane.gateway.admin.endpoints import Route, endpoint_of

MODEL = "/v1/models/{model:path}"
ALIAS = "/v1/aliases/{alias:path}"

# A path that ends in a word comes before the model's own, which takes any.
ROUTES = (
    Route(
        verb="GET", path="/v1/models", rpc="ModelService/ListModels",
        query=("name_prefix", "label_selector", "task", "class_names", "artifact", "dataset"),
    ),
    Route(
        verb="POST", path="/v1/models", rpc="ModelService/RegisterModel",
        body="", answer="version", status=201, errors=(404, 409),
    ),
    Route(
        verb="POST", path=f"{MODEL}/load", rpc="ModelService/LoadModel",
        body="", body_may_lack=True, answer="version", errors=(404, 409),
    ),
    Route(
        verb="POST", path=f"{MODEL}/unload", rpc="ModelService/UnloadModel",
        query=("force",), answer="version", errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/residency", rpc="ModelService/SetResidency",
        body="residency", answer="version", errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/labels", rpc="ModelService/SetLabels",
        body="", answer="version", errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/placement", rpc="ModelService/SetPlacement",
        body="placement", answer="version", errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/batching/{{device_kind}}", rpc="ModelService/SetBatching",
        body="batching", answer="version", errors=(404, 409),
    ),
    Route(
        verb="DELETE", path=f"{MODEL}/batching/{{device_kind}}", rpc="ModelService/SetBatching",
        name="ClearBatching", answer="version", errors=(404, 409),
    ),
    Route(
        verb="POST", path=f"{MODEL}/builds", rpc="ModelService/BuildModel",
        body="", answer="build", status=201, errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/variant/{{device_kind}}", rpc="ModelService/SetVariant",
        body="", answer="version", errors=(404, 409),
    ),
    Route(
        verb="DELETE", path=f"{MODEL}/variant/{{device_kind}}", rpc="ModelService/SetVariant",
        name="ClearVariant", answer="version", errors=(404, 409),
    ),
    Route(
        verb="POST", path=f"{MODEL}/bench", rpc="BenchService/BenchModel",
        body="", body_may_lack=True, errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{MODEL}/gate", rpc="RuleService/SetGate",
        body="gate", answer="rule", errors=(404,),
    ),
    Route(
        verb="DELETE", path=f"{MODEL}/gate", rpc="RuleService/SetGate",
        name="ClearGate", answer="rule",
    ),
    Route(
        verb="POST", path=f"{MODEL}/promote", rpc="AliasService/PromoteModel",
        body="", answer="alias", errors=(404, 409),
    ),
    Route(
        verb="GET", path=f"{MODEL}/explain", rpc="ExplainService/ExplainModel", errors=(404, 409),
    ),
    Route(verb="GET", path=MODEL, rpc="ModelService/GetModel", answer="model", errors=(404, 409)),
    Route(
        verb="DELETE", path=MODEL, rpc="ModelService/DeleteModel", query=("force",),
        errors=(404, 409),
    ),
    Route(verb="GET", path="/v1/aliases", rpc="AliasService/ListAliases", query=("name_prefix",)),
    Route(
        verb="GET", path="/v1/rollouts", rpc="RolloutService/ListRollouts",
        query=("name_prefix",),
    ),
    Route(
        verb="POST", path=f"{ALIAS}/rollout", rpc="RolloutService/StartRollout",
        body="", answer="rollout", status=201, errors=(404, 409),
    ),
    Route(
        verb="GET", path=f"{ALIAS}/rollout", rpc="RolloutService/GetRollout", errors=(404, 409),
    ),
    Route(
        verb="DELETE", path=f"{ALIAS}/rollout", rpc="RolloutService/AbortRollout",
        query=("why",), answer="rollout", errors=(404, 409),
    ),
    Route(
        verb="GET", path=f"{ALIAS}/disagreements", rpc="RolloutService/GetDisagreements",
        errors=(404, 409),
    ),
    Route(
        verb="GET", path=f"{ALIAS}/family", rpc="FamilyService/GetFamily",
        answer="family", errors=(404, 409),
    ),
    Route(
        verb="PUT", path=f"{ALIAS}/family", rpc="FamilyService/SetFamily",
        body="", answer="family", errors=(404, 409),
    ),
    Route(
        verb="POST", path=f"{ALIAS}/rollback", rpc="AliasService/RollbackAlias",
        body="", body_may_lack=True, answer="alias", errors=(404, 409),
    ),
    Route(verb="GET", path=ALIAS, rpc="AliasService/GetAlias", answer="alias", errors=(404, 409)),
    Route(
        verb="PUT", path=ALIAS, rpc="AliasService/SetAlias",
        body="", answer="alias", errors=(404, 409),
    ),
    Route(
        verb="DELETE", path=ALIAS, rpc="AliasService/DeleteAlias",
        query=("expected_revision",), status=204, errors=(404, 409),
    ),
    Route(
        verb="POST", path="/v1/plan", rpc="ExplainService/PlanLoad", body="", errors=(404, 409),
    ),
    Route(
        verb="POST", path="/v1/changeovers", rpc="ModelService/Changeover",
        body="", errors=(404, 409),
    ),
    Route(
        verb="POST", path="/v1/store/sweep", rpc="ModelService/SweepStore",
        body="", body_may_lack=True, errors=(409,),
    ),
    Route(verb="GET", path="/v1/rules", rpc="RuleService/ListRules"),
    Route(
        verb="POST", path="/v1/store/rules", rpc="RuleService/SetStoreRule",
        body="", answer="rule",
    ),
    Route(verb="GET", path="/v1/fleet", rpc="FleetService/GetFleet"),
    Route(verb="GET", path="/v1/statistics", rpc="FleetService/GetStatistics"),
    Route(verb="GET", path="/v1/workers", rpc="FleetService/ListWorkers"),
    Route(
        verb="GET", path="/v1/workers/{worker}", rpc="FleetService/GetWorker",
        answer="worker", errors=(404,),
    ),
    Route(
        verb="POST", path="/v1/workers/{worker}/drain", rpc="FleetService/DrainWorker",
        errors=(404, 409),
    ),
    Route(
        verb="GET", path="/v1/requests/{request_id:path}/explain",
        rpc="ExplainService/ExplainRequest", errors=(404,),
    ),
    Route(verb="GET", path="/v1/schedules", rpc="ScheduleService/ListSchedules"),
    Route(
        verb="GET", path="/v1/schedules/{name}", rpc="ScheduleService/GetSchedule",
        answer="schedule", errors=(404,),
    ),
    Route(
        verb="PUT", path="/v1/schedules/{name}", rpc="ScheduleService/SetSchedule",
        body="schedule", answer="schedule", errors=(404, 409),
    ),
    Route(
        verb="DELETE", path="/v1/schedules/{name}", rpc="ScheduleService/DeleteSchedule",
        status=204, errors=(404, 409),
    ),
    Route(verb="GET", path="/v1/watches", rpc="WatchService/ListWatches"),
    Route(
        verb="PUT", path="/v1/watches/{name}", rpc="WatchService/SetWatch",
        body="watch", answer="watch", errors=(409,),
    ),
    Route(
        verb="DELETE", path="/v1/watches/{name}", rpc="WatchService/DeleteWatch",
        status=204, errors=(404, 409),
    ),
    Route(verb="GET", path="/v1/alerts", rpc="AlertService/ListAlerts", query=("stage",)),
    Route(verb="GET", path="/v1/alerts/rules", rpc="AlertService/ListAlertRules"),
    Route(
        verb="POST", path="/v1/alerts/{id}/resolve", rpc="AlertService/ResolveAlert",
        answer="alert", errors=(404,),
    ),
    Route(verb="GET", path="/v1/alerts/silences", rpc="AlertService/ListSilences"),
    Route(
        verb="POST", path="/v1/alerts/silences", rpc="AlertService/SilenceAlerts",
        body="", answer="silence", status=201,
    ),
    Route(
        verb="DELETE", path="/v1/alerts/silences/{id}", rpc="AlertService/EndSilence",
        status=204, errors=(404,),
    ),
    Route(
        verb="PUT", path="/v1/alerts/thresholds", rpc="AlertService/SetAlertThreshold",
        body="threshold", answer="rule",
    ),
    Route(verb="GET", path="/v1/alerts/webhooks", rpc="AlertService/ListWebhooks"),
    Route(
        verb="PUT", path="/v1/alerts/webhooks/{name}", rpc="AlertService/SetWebhook",
        body="webhook", answer="webhook",
    ),
    Route(
        verb="DELETE", path="/v1/alerts/webhooks/{name}", rpc="AlertService/DeleteWebhook",
        status=204, errors=(404,),
    ),
    Route(
        verb="POST", path="/v1/alerts/webhooks/{name}/test", rpc="AlertService/TestWebhook",
        errors=(404,),
    ),
    Route(verb="GET", path="/v1/certificates", rpc="CertificateService/ListCertificates"),
    Route(
        verb="POST", path="/v1/certificates/join-tokens", rpc="CertificateService/CreateJoinToken",
        body="", status=201, errors=(409,),
    ),
    Route(
        verb="DELETE", path="/v1/certificates/{name}", rpc="CertificateService/RevokeCertificate",
        errors=(404,),
    ),
    Route(verb="GET", path="/v1/keys", rpc="KeyService/ListKeys"),
    Route(verb="POST", path="/v1/keys", rpc="KeyService/CreateKey", body="", status=201),
    Route(
        verb="POST", path="/v1/keys/{id}/rotate", rpc="KeyService/RotateKey",
        body="", body_may_lack=True, errors=(404, 409),
    ),
    Route(
        verb="DELETE", path="/v1/keys/{id}", rpc="KeyService/RevokeKey", answer="key",
        errors=(404, 409),
    ),
    Route(verb="GET", path="/v1/tenants", rpc="TenantService/ListTenants"),
    Route(verb="GET", path="/v1/usage", rpc="TenantService/GetUsage", query=("name", "days")),
    Route(
        verb="PUT", path="/v1/tenants/{name}", rpc="TenantService/SetTenant",
        body="tenant", answer="tenant", errors=(409,),
    ),
    Route(
        verb="DELETE", path="/v1/tenants/{name}", rpc="TenantService/DeleteTenant",
        query=("confirm", "dry_run"), errors=(409,),
    ),
)  # fmt: skip


def admin_routes() -> APIRouter:
    """The endpoints of the table, for an application whose state has the `dispatch`."""
    return APIRouter(routes=[endpoint_of(route) for route in ROUTES])
