"""`POST /v1/detect`: an image in, what is on it out, as JSON, CSV, or drawn on the picture."""

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control_plane.gateway import proto_json
from control_plane.gateway.connection.envelope import caller_of, request_id_of
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.openapi import PROBLEMS
from control_plane.gateway.rest import bodies, negotiation, options, tables
from control_plane.gateway.rest.pictures import FORMATS, Pictures
from control_plane.gateway.rest.reference import DETECT
from yolopool.v1 import detection_pb2

METHOD = "/yolopool.v1.DetectionService/Detect"
JSON, CSV = "application/json", "text/csv"
OFFERED = (JSON, CSV, *FORMATS)
_ERRORS = (400, 404, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504)


def router(dispatch: Dispatch, pictures: Pictures, max_parts: int) -> APIRouter:
    door = APIRouter(tags=["detection"])

    @door.post(
        "/v1/detect",
        operation_id="Detect",
        summary="Runs one model on one image",
        response_class=Response,
        responses={status: PROBLEMS[status] for status in _ERRORS},
        openapi_extra=DETECT,
    )
    async def detect(request: Request) -> Response:
        """Runs one model on one image. A model that is not loaded is loaded first. `Accept` says
        in which form the answer comes; errors come as problem+json always.
        """
        headers, scope = request.headers, request.scope
        media_type = negotiation.choose(",".join(headers.getlist("accept")), OFFERED)
        if media_type is None:
            raise HTTPException(406, f"Accept allows none of {', '.join(OFFERED)}")
        if headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "a packed body is not taken: leave Content-Encoding out")
        given, image = bodies.parse(
            headers.get("content-type", ""), scope["query_string"], await request.body(), max_parts
        )
        message = options.request_of(given)
        message.encoded = image
        message.request_id = request_id_of(scope)
        answer = await dispatch.unary(METHOD, message, caller_of(scope, "rest", given.timeout))
        return Response(await _form(answer, image, media_type), media_type=media_type)

    async def _form(answer: detection_pb2.DetectResponse, image: bytes, media_type: str) -> bytes:
        if media_type == JSON:
            return proto_json.dumps(answer)
        if media_type == CSV:
            return tables.csv_of(answer)
        return await pictures.draw(image, answer, media_type)

    return door
