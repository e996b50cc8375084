"""One pool and one browser for all tests of the console."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.console.opened import CHROMIUM, FLAGS, SHAPES, WIDTHS, Opened
from yolopool.client.client import Client
from yolopool.local.pool import LocalPool, PoolOptions


@pytest.fixture(scope="package")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    """Two devices that find what is on pictures, and a model that is not loaded."""
    folder = tmp_path_factory.mktemp("pool")
    options = PoolOptions(folder, port=0, http_port=0, devices="cpu:2x1", auth=True)
    with LocalPool(options, lambda _: None) as pool:
        with Client(pool.address, pool.api_key) as admin:
            admin.register("shapes", SHAPES)
        yield pool


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, pool: LocalPool) -> Iterator[Opened]:
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), WIDTHS["desktop"], strict=True))
    )
    yield Opened(context, pool.http)
    context.close()
