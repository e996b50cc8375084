"""DetectionService: lets in each Detect, a frame of a stream too, checks it, and passes it to the
router. What other doors take comes here, too, image by image.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing

from control_plane.caller import CallContext, origin_of
from control_plane.convert.tenants import lowered_priority
from control_plane.convert.validation import deadline_of, infer_request
from control_plane.routing.router import Router
from control_plane.streams.detect_streams import DetectStreams
from control_plane.tenants.admission import Admission
from yolopool.errors import YolopoolError
from yolopool.names import parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2, detection_pb2_grpc


class DetectionService(detection_pb2_grpc.DetectionServiceServicer):
    def __init__(
        self,
        router: Router,
        clock: Clock,
        default_deadline_s: float,
        max_image_bytes: int,
        max_raw_bytes: int,
        streams: DetectStreams,
        admission: Admission,
    ) -> None:
        self._router = router
        self._admission = admission
        self._clock = clock
        self._default_deadline_s = default_deadline_s
        self._max_image_bytes = max_image_bytes
        self._max_raw_bytes = max_raw_bytes
        self._streams = streams

    async def Detect(
        self, request: detection_pb2.DetectRequest, context: CallContext
    ) -> detection_pb2.DetectResponse:
        deadline_s = deadline_of(context, self._clock.monotonic(), self._default_deadline_s)
        origin = origin_of(context)
        principal = origin.principal
        encoded = request.encoded
        size_bytes = len(encoded) or len(request.raw.data)
        try:
            opened = self._admission.open(principal.tenant, size_bytes)
        except YolopoolError as error:
            self._router.refused(request, origin, error)
            raise
        with opened as tenant:
            try:
                ref = parse_ref(request.model)
                body = infer_request(request, encoded, self._max_image_bytes, self._max_raw_bytes)
            except YolopoolError as error:
                self._router.refused(request, origin, error)
                raise
            del encoded  # not kept while the answer is waited for
            body.tenant, body.weight = principal.tenant, tenant.weight
            body.priority = lowered_priority(body.priority, tenant.priority_ceiling)
            return await self._router.detect(request, ref, body, origin, deadline_s, size_bytes)

    async def DetectStream(
        self, requests: AsyncIterator[detection_pb2.DetectStreamRequest], context: CallContext
    ) -> AsyncIterator[detection_pb2.DetectStreamResponse]:
        async with aclosing(self._streams.serve(requests, context, self.Detect)) as answers:
            async for answer in answers:
                yield answer

    def close(self) -> None:
        """Ends the streams, each after the frames that are on their way."""
        self._streams.close()
