"""The console in a browser: what its user sees and does, with a pool behind it.

No page writes an error to the browser's console, and none asks another host for anything.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control_plane.gateway.proto_json import dumps
from tests.e2e.console.opened import HOSTILE, IMAGES, MARKS, SHAPES, WIDTHS, Opened, key_of, serious
from yolopool.client.client import Client
from yolopool.local.pool import LocalPool
from yolopool.v1 import detection_pb2, rollouts_pb2, types_pb2

pytestmark = MARKS
# With what is there once the page is.
PAGES = {
    "": "#devices article",
    "models": "table[aria-label=Models] tbody a",
    "model?name=shapes": "#versions article",
    "try?model=shapes": "#picked li",
    "events": "#events time",
    "doctor": "#findings > :not(:text('Looking'))",
}
PICTURE = IMAGES / "00003.png"


def test_a_load_from_the_page_changes_the_bar(pool: LocalPool, opened: Opened) -> None:
    page = opened.go("")
    # Nobody is signed in: nothing of the pool is on the page, and the dialog does not go away.
    page.wait_for_selector("dialog input[name=key]")
    page.keyboard.press("Escape")
    assert page.is_visible("dialog input[name=key]")
    assert "sim" not in page.inner_text("main")
    page.fill("dialog input[name=key]", "yp_wrong_key")
    page.click("dialog button[type=submit]")
    page.wait_for_selector("dialog [role=alert]:not([hidden])")
    assert "not known" in page.inner_text("dialog [role=alert]")
    opened.complaints.clear()  # the browser notes that this answer was 401
    opened.sign_in(pool.api_key)
    page.locator("#devices article").nth(1).wait_for()
    held = page.locator("#devices .ledger[aria-label*='shapes@1 ']")
    assert (page.locator("#devices .ledger").count(), held.count()) == (2, 0)
    page.click("nav >> text=Models")
    page.click("main a:text-is('shapes')")
    page.click("#actions button:text-is('Load')")
    page.wait_for_selector("dialog li:has-text('shapes@1')")  # what would be done
    page.fill("dialog input[name=replicas]", "2")
    page.click("dialog button:text-is('Load')")
    page.wait_for_selector("#told:has-text('is being loaded')")
    page.click("nav >> text=Fleet")
    held.nth(1).wait_for()
    assert page.locator("#devices .ledger i.f-m0").count() == 2
    assert not opened.complaints


def test_an_order_is_confirmed_and_given_by_the_keyboard_alone(
    pool: LocalPool, opened: Opened
) -> None:
    page = opened.go("model?name=shapes")
    page.wait_for_selector("dialog input[name=key]")
    page.keyboard.type(pool.api_key)  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("#actions button:text-is('Pin')")

    def pins() -> bool:
        with Client(pool.address, pool.api_key) as admin:
            return admin.model("shapes").versions[0].pinned

    page.focus("#actions button:text-is('Pin')")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert not pins()
    page.keyboard.press("Enter")  # the focus came back
    page.wait_for_selector("dialog")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#told:has-text('pinned')")
    page.wait_for_selector("#actions button:text-is('Unpin')")
    assert pins()
    log = "".join(path.read_text() for path in (pool.options.data_dir / "logs").glob("control*"))
    assert re.search(r"SetResidency", log)
    assert not opened.complaints


def test_what_a_caller_may_not_do_is_not_offered(pool: LocalPool, opened: Opened) -> None:
    made = key_of(pool, "DETECT", "shapes")
    page = opened.go("models")
    opened.sign_in(made["secret"])
    page.wait_for_selector("main a:text-is('shapes')")
    assert not page.is_visible("#register")
    assert "this needs the role operate" in page.inner_text("#note")
    page.click("main a:text-is('shapes')")
    page.wait_for_selector("#actions p")
    assert page.locator("#actions button").count() == 0
    assert "Not offered: Load, Pin, Unload, New version" in page.inner_text("#actions")
    page.click("nav >> text=Fleet")
    page.wait_for_selector("#devices .empty:has-text('not shown to you')")
    assert not opened.complaints


def test_a_session_ends_with_its_key(pool: LocalPool, opened: Opened) -> None:
    made = key_of(pool, "OPERATE")
    page = opened.go("")
    opened.sign_in(made["secret"])
    page.wait_for_selector("#devices article")
    assert page.evaluate("document.cookie") == ""
    with Client(pool.address, pool.api_key) as admin:
        admin.revoke_key(made["key"]["id"])
    page.wait_for_selector("dialog input[name=key]")
    assert page.locator("#devices article").count() == 0


def test_what_somebody_named_is_text(pool: LocalPool, opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / f"{HOSTILE}.pt"
    file.write_bytes(SHAPES.read_bytes())
    with Client(pool.address, pool.api_key) as admin:
        admin.register("hostile", file, class_names=[HOSTILE, "b", "c"])
        admin.promote("hostile@1", "stable", why=HOSTILE)
    page = opened.go("model?name=hostile")
    opened.sign_in(pool.api_key)
    page.wait_for_selector("#aliases summary")
    page.click("#aliases summary")
    assert HOSTILE in page.inner_text("#aliases")
    assert page.inner_text("#versions").count("<img src=x") == 2
    page.goto(f"http://{pool.http}/console/model?name={HOSTILE}")
    page.wait_for_selector("#versions .empty")
    assert page.inner_text("h1") == HOSTILE
    opened.complaints = [one for one in opened.complaints if "400" not in one]
    page.goto(f"http://{pool.http}/console/events")
    page.wait_for_selector("#events li:has-text('hostile@1')")
    assert HOSTILE in page.inner_text("#events")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script").count() == 0
    assert not opened.complaints


def test_a_file_that_is_chosen_becomes_a_version(pool: LocalPool, opened: Opened) -> None:
    page = opened.go("models")
    opened.sign_in(pool.api_key)
    page.click("#register")
    page.set_input_files("dialog input[type=file]", SHAPES)
    assert page.input_value("dialog input[name=model]") == "shapes"
    page.fill("dialog input[name=model]", "from-page")
    page.click("dialog button:text-is('Register')")
    page.wait_for_selector("dialog [role=status]:has-text('is ready')")
    page.keyboard.press("Enter")  # on Close
    page.wait_for_selector("main a:text-is('from-page')")
    assert not opened.complaints


def answered(body: bytes) -> Callable[[Any], None]:
    return lambda route: route.fulfill(body=body, content_type="application/json")


def test_pictures_show_what_two_versions_found(pool: LocalPool, opened: Opened) -> None:
    """Simulated devices agree always: the answers about a rollout are made here."""
    box = types_pb2.Box(x_min=20, y_min=30, x_max=90, y_max=110)
    found = detection_pb2.DetectResponse(
        detections=[detection_pb2.Detection(class_name="circle", box=box)]
    )
    told = rollouts_pb2.Rollout(
        id="r",
        alias="shapes:seen",
        stable=1,
        candidate=2,
        running=True,
        plan=rollouts_pb2.RolloutPlan(keep_images=True),
    )
    image = PICTURE.read_bytes()
    pair = rollouts_pb2.Disagreement(encoded=image, stable=found)
    answers = {
        "**/v1/rollouts?**": rollouts_pb2.ListRolloutsResponse(rollouts=[told]),
        "**seen/rollout": rollouts_pb2.GetRolloutResponse(rollout=told, requests=7),
        "**/disagreements": rollouts_pb2.GetDisagreementsResponse(disagreements=[pair]),
    }
    with Client(pool.address, pool.api_key) as admin:
        admin.promote("shapes@1", "seen")
    for path, answer in answers.items():
        opened.page.route(path, answered(dumps(answer)))
    page = opened.go("model?name=shapes")
    opened.sign_in(pool.api_key)
    page.wait_for_selector("#rollout canvas")
    assert "found 1 object, the candidate 0" in page.get_attribute("#rollout canvas", "aria-label")
    assert not opened.complaints
    seen = page.evaluate(
        """async () => {
            const canvas = document.querySelector("#rollout canvas");
            while (canvas.width !== 320) await new Promise((go) => setTimeout(go, 20));
            const pen = canvas.getContext("2d");
            return [[20, 70], [90, 70], [55, 30], [55, 110], [55, 70]].map(([x, y]) =>
                [...pen.getImageData(x, y, 1, 1).data].slice(0, 3).join());
        }"""
    )
    assert len(set(seen[:4])) == 1
    assert seen[4] not in seen[:4]


@pytest.mark.parametrize("width", WIDTHS)
def test_everyone_can_use_the_pages(pool: LocalPool, browser: Any, width: str) -> None:
    """axe-core finds nothing serious in light or dark, and nothing is wider than the window."""
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    context = browser.new_context(viewport=size, reduced_motion="reduce")
    opened = Opened(context, pool.http)
    page = opened.go("")
    page.wait_for_selector("dialog")
    found = by_theme(page, "sign in")
    opened.sign_in(pool.api_key)
    for path, there in PAGES.items():
        opened.go(path)
        page.wait_for_selector(there)
        if path.startswith("try"):
            page.set_input_files("#files", PICTURE)
            page.wait_for_selector(".pane .waterfall")
            page.click(".pane summary")
        found += by_theme(page, path)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found += [f"{path}: {wide} pixels too wide"] if wide > 0 else []
    page.click("nav >> text=Models")
    page.click("#register")
    found += by_theme(page, "dialog")
    context.close()
    assert not found
    assert not opened.complaints


def by_theme(page: Any, name: str) -> list[str]:
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found += [f"{name}, {theme}: {one}" for one in serious(page)]
    return found
