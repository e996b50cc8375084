"""A page of the console in a browser, for tests."""

import json
import shutil
import time
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.models import ROOT
from yolopool.local.pool import LocalPool

CHROMIUM = shutil.which("chromium")
MARKS = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # A camera that shows a clock and a ball, given without a question.
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
AXE = (ROOT / "tests/vendor/axe-core/axe.min.js").read_text()
SHAPES = ROOT / "examples/shapes/models/shapes.pt"
IMAGES = ROOT / "examples/shapes/images"
HOSTILE = "<img src=x onerror=window.pwned=1>"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}


class Opened:
    """A page, with what its browser complained of."""

    def __init__(self, context: Any, http: str) -> None:
        self.complaints: list[str] = []
        self.http = http
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"http://{self.http}/", "blob:", "data:")):
            self.complaints.append(f"it asks {request.url}")

    def go(self, path: str) -> Any:
        self.page.goto(f"http://{self.http}/console/{path}")
        return self.page

    def sign_in(self, key: str) -> None:
        self.page.fill("dialog input[name=key]", key)
        self.page.click("dialog button[type=submit]")
        self.page.wait_for_selector("dialog", state="detached")


def key_of(pool: LocalPool, role: str, *models: str) -> dict[str, Any]:
    """A new key: its id and secret."""
    body = json.dumps({"role": f"ROLE_{role}", "models": models or ["*"]}).encode()
    headers = {"authorization": f"Bearer {pool.api_key}", "content-type": "application/json"}
    with urlopen(Request(f"http://{pool.http}/v1/keys", body, headers), timeout=20) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def serious(page: Any) -> list[str]:
    """What axe-core finds serious or critical."""
    page.evaluate(AXE)
    run = "axe.run().then(({violations}) => violations)"
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in page.evaluate(run)
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


def until(page: Any, expression: str, limit_s: float = 20.0) -> None:
    """Returns once it is true. The page's own policy keeps it from waiting for it by itself."""
    end = time.monotonic() + limit_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)
