"""The documentation page: Swagger UI over the OpenAPI document, from this machine's files."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, Response

from yolopool.errors import NotFound

# Swagger UI (Apache-2.0), as this package (MIT) brings it along.
_FILES = files("fastapi_offline") / "static"
_KINDS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


def pages(openapi_url: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url=openapi_url,
            title="yolopool",
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon.png",
        )

    @router.get("/docs/{name}")
    async def file(name: str) -> Response:
        if name not in _KINDS:
            raise NotFound(f"/docs has {', '.join(_KINDS)} and no {name[:80]!r}")
        return FileResponse(str(_FILES / name), media_type=_KINDS[name])

    return router
