"""Health over HTTP as Kubernetes asks for it: `/livez`, `/readyz`, and readiness of one model."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from control_plane.gateway.connection.envelope import request_id_of
from control_plane.gateway.entrance import visitor_of
from control_plane.gateway.health.model_readiness import ModelReadiness
from control_plane.gateway.openapi import PROBLEMS
from control_plane.gateway.problem import problem
from control_plane.identity.guard import Guard
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, YolopoolError
from yolopool.names import parse_ref


@dataclass(frozen=True, slots=True)
class Check:
    """`fault` is empty if it passed. One that is not `required` only informs."""

    name: str
    fault: str
    required: bool = True


def report(checks: Sequence[Check], excluded: Collection[str]) -> tuple[bool, str]:
    """Whether the required checks passed, and a line for each, as kube-apiserver prints them."""
    lines, passed = [], True
    for check in checks:
        if not check.fault:
            lines.append(f"[+]{check.name} ok")
        elif check.name in excluded:
            lines.append(f"[+]{check.name} excluded: ok")
        elif not check.required:
            lines.append(f"[ ]{check.name} not required: {check.fault}")
        else:
            passed = False
            lines.append(f"[-]{check.name} failed: {check.fault}")
    lines.append(f"readyz check {'passed' if passed else 'failed'}")
    return passed, "\n".join(lines) + "\n"


def pages(
    view: View, readiness: ModelReadiness, is_draining: Callable[[], bool], guard: Guard
) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez", response_class=PlainTextResponse, summary="Is the process alive?")
    @router.get("/healthz", include_in_schema=False)
    async def livez() -> Response:
        """200 while the event loop runs."""
        return PlainTextResponse("ok\n")

    @router.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Does the process take calls?",
        responses={
            503: {"description": "It does not.", "content": {"text/plain": {}}},
            400: PROBLEMS[400],
        },
    )
    async def readyz(
        verbose: Annotated[str | None, Query(description="print every check")] = None,
        exclude: Annotated[list[str] | None, Query(description="checks that may fail")] = None,
    ) -> Response:
        """200 once desired state was read, with or without workers, until the process stops."""
        passed, text = report(_checks(view, is_draining()), exclude or ())
        if passed and verbose is None:
            text = "ready\n"
        return PlainTextResponse(text, 200 if passed else 503)

    @router.get(
        "/v1/models/{model:path}/ready",
        summary="Is a model ready?",
        responses={code: PROBLEMS[code] for code in (400, 404, 503)},
    )
    async def model_ready(model: str, request: Request) -> Response:
        """200 if a Detect that came now would be answered without waiting for a load; `model` is a
        name, team/name, name@version or name:alias. 404: there is no such model. 503: it is not
        ready, and `reason` says why.
        """
        if not view.is_loaded:
            raise RegistryUnavailable(f"the registry was not read yet ({view.unread_because})")
        reference, principal = parse_ref(model), visitor_of(request.scope)
        guard.check_sees(model, principal)
        try:
            why_not = readiness.why_not(reference)
        except YolopoolError as error:
            raise guard.veiled(error, principal, model) from error
        if why_not is not None:
            told = guard.veiled(why_not, principal, model)
            return problem(told, request_id_of(request.scope), 503)
        return JSONResponse({"model": model, "ready": True})

    return router


def _checks(view: View, is_draining: bool) -> list[Check]:
    unread = "" if view.is_loaded else f"it was not read yet ({view.unread_because})"
    store = "" if view.registry_available else "it does not answer, or takes no writes"
    return [
        Check("registry", unread),
        Check("watches", view.preparing),
        Check("drain", "this process stops" if is_draining else ""),
        Check("store", store, required=False),
        Check("workers", "" if view.has_live_worker() else "none is connected", required=False),
    ]
