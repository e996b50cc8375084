"""However a Detect ends, its image waits for its answer no more."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from control_plane.caller import Principal
from control_plane.services.detection import DetectionService
from control_plane.tenants.admission import Admission
from control_plane.types.access.api_key import Role
from control_plane.types.access.tenant import Tenant, TenantLimits
from yolopool.errors import ImageEmpty, TenantConcurrency, WorkerLost
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2

TENANT = Tenant("t", limits=TenantLimits(concurrent_requests=1))
REQUEST = detection_pb2.DetectRequest(model="m", encoded=b"jpeg")
NO_IMAGE = detection_pb2.DetectRequest(model="m")


class Router:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = asyncio.Event()

    async def detect(self, *_: Any) -> Any:
        self.asked.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    def refused(self, *_: Any) -> None:
        pass


@pytest.fixture
def parts() -> tuple[Router, Admission, DetectionService, Any]:
    clock = Clock(lambda: 1.0, lambda: 1e9)
    view: Any = SimpleNamespace(desired=SimpleNamespace(tenants={"t": TENANT}))
    router, admission = Router(), Admission(view, clock)
    given: Any = router
    streams: Any = None
    service = DetectionService(given, clock, 30.0, 100, 100, streams, admission)
    context = SimpleNamespace(
        principal=Principal("key:k", Role.DETECT, ("*",), "t"),
        time_remaining=lambda: 5.0,
        invocation_metadata=tuple,
    )
    return router, admission, service, context


async def test_a_call_that_is_cancelled_waits_no_more(parts: Any) -> None:
    router, admission, service, context = parts
    call = asyncio.create_task(service.Detect(REQUEST, context))
    await router.asked.wait()
    assert admission.quotas["t"].open == 1
    with pytest.raises(TenantConcurrency):
        await service.Detect(REQUEST, context)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert admission.quotas["t"].open == 0


async def test_a_call_that_fails_waits_no_more(parts: Any) -> None:
    router, admission, service, context = parts
    router.error = WorkerLost("it ended")
    for request, error in ((REQUEST, WorkerLost), (NO_IMAGE, ImageEmpty)):
        with pytest.raises(error):
            await service.Detect(request, context)
        assert admission.quotas["t"].open == 0


async def test_a_call_that_outlives_its_tenant_leaves_nothing(parts: Any) -> None:
    router, admission, service, context = parts
    call = asyncio.create_task(service.Detect(REQUEST, context))
    await router.asked.wait()
    admission._view.desired.tenants = {}
    admission.forget_gone()
    assert admission.quotas["t"].open == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    admission.forget_gone()
    assert admission.quotas == {}


def test_what_a_worker_says_is_counted_where_it_is_a_time(parts: Any) -> None:
    _, admission, _, _ = parts
    for seconds in (0.5, float("nan"), float("inf"), -1.0, 0.0):
        admission.used_device("t", seconds)
    assert admission.meter.so_far("t").device_s == 0.5
