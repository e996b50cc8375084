"""The try page in a browser, before devices that find what is on the pictures."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from control_plane.gateway.proto_json import dumps
from tests.e2e.console.opened import IMAGES, MARKS, Opened, until
from tests.models import ROOT
from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.local.pool import LocalPool
from yolopool.v1 import detection_pb2

pytestmark = MARKS
OTHER = ROOT / "examples/shapes/models/shapes-v8.pt"
TRUTH = json.loads((IMAGES / "gt.json").read_text())
PICTURE = IMAGES / "00003.png"
# Lying down, with a note which way is up; and a name that a shell would take for several words.
LYING = "it's lying.jpg"
# Where the objects of a pane are drawn, in pixels of its image, and in what colour.
DRAWN = """(pane) => {
    const frame = pane.querySelector("canvas").getBoundingClientRect();
    const {width, height} = pane.querySelector(".overlay").viewBox.baseVal;
    return [...pane.querySelectorAll(".object")].map((object) => {
        const line = object.querySelector(".line"), box = line.getBBox(), at = line.getScreenCTM();
        const x = (value) => (at.a * value + at.e - frame.left) * width / frame.width;
        const y = (value) => (at.d * value + at.f - frame.top) * height / frame.height;
        return {name: object.getAttribute("aria-label"), colour: getComputedStyle(object).color,
            box: [x(box.x), y(box.y), x(box.x + box.width), y(box.y + box.height)]};
    });
}"""


@pytest.fixture(scope="module")
def other(pool: LocalPool) -> str:
    with Client(pool.address, pool.api_key) as admin:
        admin.register("team/other", OTHER)
    return "team/other"


@pytest.fixture
def page(pool: LocalPool, opened: Opened) -> Iterator[Any]:
    """The page, which asks `shapes`."""
    page = opened.go("try?model=shapes")
    opened.sign_in(pool.api_key)
    page.wait_for_selector("#picked li")
    yield page
    assert not opened.complaints


def answered(page: Any, panes: int) -> list[Any]:
    page.locator(".pane .waterfall").nth(panes - 1).wait_for()
    until(page, "!document.querySelector('.pane[aria-busy]')")
    return page.locator(".pane").element_handles()  # type: ignore[no-any-return]


def lying() -> bytes:
    with Image.open(PICTURE) as upright:
        turned = upright.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right
    stream = io.BytesIO()
    turned.save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def test_right_boxes_of_two_models_side_by_side(pool: LocalPool, page: Any, other: str) -> None:
    picture = {"name": LYING, "mimeType": "image/jpeg", "buffer": lying()}
    page.set_input_files("#files", PICTURE)
    answered(page, 1)
    page.fill("#add", other)
    page.keyboard.press("Enter")
    answered(page, 2)
    page.set_input_files("#files", [picture])  # the newest is the first
    panes = answered(page, 4)
    page.mouse.move(0, 0)  # others are pale where one is pointed at
    with Client(pool.address, pool.api_key) as client:
        for at, pane in enumerate(panes):
            model = ("shapes", other)[at % 2]
            image = lying() if at < 2 else PICTURE.read_bytes()
            found: Detections = client.detect(image, model, confidence=0.25)
            assert len(found) == len(TRUTH["images"][PICTURE.name])
            drawn = pane.evaluate(DRAWN)
            for name, box in zip(found.class_name, found.xyxy.tolist(), strict=True):
                assert (
                    min(
                        max(abs(a - b) for a, b in zip(one["box"], box, strict=True))
                        for one in drawn
                        if one["name"].startswith(f"{name} ")
                    )
                    < 0.5
                )
            for truth in TRUTH["images"][PICTURE.name]:
                name = TRUTH["names"][str(truth["cls"])]
                assert any(
                    one["name"].startswith(f"{name} ")
                    and max(abs(a - b) for a, b in zip(one["box"], truth["xyxy"], strict=True)) < 6
                    for one in drawn
                )
            assert_lines_are_there(pane, drawn)
    against = page.locator(".against").all_inner_texts()
    assert against == ["Against shapes: 4 the same, 0 only here (dashed), 0 missing"] * 2
    assert page.url.endswith("model=shapes&model=team%2Fother")


def assert_lines_are_there(pane: Any, drawn: list[Any]) -> None:
    """On the screen the sides of each box have its colour."""
    shot = Image.open(
        io.BytesIO(pane.query_selector(".stage").screenshot(animations="disabled"))
    ).convert("RGB")
    scale = shot.width / 320
    for one in drawn:
        left, top, right, bottom = (side * scale for side in one["box"])
        colour = tuple(map(int, re.findall(r"\d+", one["colour"])[:3]))
        for x, y in ((left, (top + bottom) / 2), (right, (top + bottom) / 2)):
            around: Any = shot.crop(
                (round(x) - 1, round(y) - 1, round(x) + 2, round(y) + 2)
            ).get_flattened_data()
            off = min(max(abs(a - b) for a, b in zip(seen, colour, strict=True)) for seen in around)
            assert off < 40


def test_objects_are_told_by_hover_and_keyboard_and_hidden_by_the_slider(page: Any) -> None:
    asked = []
    page.on("request", lambda one: asked.append(one.url) if "/v1/detect" in one.url else None)
    page.set_input_files("#files", PICTURE)
    answered(page, 1)
    said = page.locator(".said")
    assert said.inner_text() == "2 circle, 2 square"
    page.locator(".object[aria-label^=square]").first.hover()
    assert re.match(r"square \d+\s%, x \d+ to \d+, y \d+ to \d+$", said.inner_text())
    page.mouse.move(0, 0)
    page.focus("#clear")
    page.keyboard.press("Tab")  # one stop a picture
    sure = [page.evaluate("document.activeElement.getAttribute('aria-label')")]
    assert said.inner_text() == sure[0]
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        sure.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    values = [int(re.search(r"(\d+)\s%", text)[1]) for text in sure]  # type: ignore[index]
    assert len(set(sure)) == 4
    assert values == sorted(values, reverse=True)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"

    def least(value: str) -> None:
        page.locator("#confidence").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input'));"
            " slider.dispatchEvent(new Event('change')); }",
            value,
        )

    least("1")
    page.wait_for_selector(".said:has-text('Nothing is that sure')")
    assert page.locator(".object").count() == 0
    least("0.25")
    page.wait_for_selector(".said:has-text('2 circle')")
    assert len(asked) == 1  # more sure than was asked for is known already
    least("0.02")
    until(page, "document.querySelector('.pane pre').textContent.includes('confidence=0.02')")
    answered(page, 1)
    assert [re.search("confidence=(.*)", url)[1] for url in asked] == ["0.25", "0.02"]  # type: ignore[index]


def test_the_code_does_the_same(pool: LocalPool, page: Any, tmp_path: Path) -> None:
    picture = {"name": LYING, "mimeType": "image/jpeg", "buffer": lying()}
    page.set_input_files("#files", [picture])
    (pane,) = answered(page, 1)
    page.click(".pane summary")
    curl, python = page.locator(".pane pre").all_inner_texts()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("button[aria-label='Copy the Python code']")
    page.wait_for_selector(".pane [role=status]:has-text('copied')")
    assert page.evaluate("navigator.clipboard.readText()") == python
    (tmp_path / LYING).write_bytes(lying())
    env = {**os.environ, "YOLOPOOL_API_KEY": pool.api_key}
    drawn = [one["name"].split()[0] for one in pane.evaluate(DRAWN)]
    for command in (["sh", "-c", f"{curl} --fail --silent"], [sys.executable, "-c", python]):
        out = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        names = re.findall(r'"class_name":"(\w+)"|^(\w+) 0\.\d+ \{', out, re.MULTILINE)
        assert sorted("".join(name) for name in names) == sorted(drawn)


LIMBS = 18  # of a person whose right ankle is hidden
POSE = [
    {"x": 20 + 15 * i, "y": 30 + 10 * i, "visibility": 0.9 - 0.8 * (i == 16)} for i in range(17)
]
# A square of which the mask fills the upper left triangle.
MASK = {"polygons": {"parts": [{"points": [40, 40, 120, 40, 40, 120]}]}}
TURNED = {"rotation": 0.5236, "corners": [183, 192, 203, 158, 117, 108, 97, 142]}
FOUND: list[dict[str, Any]] = [
    {"class_name": "cat", "confidence": 0.9, "box": (40, 40, 120, 120), "mask": MASK},
    {"class_name": "person", "confidence": 0.8, "box": (10, 10, 300, 300), "keypoints": POSE},
    {"class_name": "ship", "confidence": 0.7, "box": (97, 108, 203, 192), "rotated_box": TURNED},
]
SIDES = ("x_min", "y_min", "x_max", "y_max")


def answer(**more: Any) -> detection_pb2.DetectResponse:
    given: dict[str, Any] = {
        "image_width": 320,
        "image_height": 320,
        "version": {"model": "m", "version": 1},
        "timing": {"inference_ms": 8, "total_ms": 10},
        **more,
    }
    return detection_pb2.DetectResponse(**given)


def test_what_other_tasks_answer_is_drawn(page: Any) -> None:
    """Their answers are made here: a real one of each would take an import."""
    found = [{**one, "box": dict(zip(SIDES, one["box"], strict=True))} for one in FOUND]
    top = [{"class_name": "tabby", "probability": 0.75}, {"class_name": "lynx", "probability": 0.2}]
    told = answer(task="segment", detections=found)
    whole = answer(task="classify", classification={"top": top})
    answers = iter((told, whole))
    page.route(
        "**/v1/detect?*",
        lambda route: route.fulfill(body=dumps(next(answers)), content_type="application/json"),
    )
    page.set_input_files("#files", PICTURE)
    (pane,) = answered(page, 1)
    page.click("#named")  # no name lies on a pixel that is looked at
    page.mouse.move(0, 0)
    assert page.locator(".dot").count() == len(POSE) - 1
    assert page.locator(".limb").count() == LIMBS
    assert page.locator("[aria-label*='16 of 17 keypoints']").count() == 1
    turned = page.locator(".object[aria-label*='turned by 30°'] .line").get_attribute("points")
    assert turned == "183,192 203,158 117,108 97,142"
    shot = Image.open(
        io.BytesIO(pane.query_selector(".stage").screenshot(animations="disabled"))
    ).convert("RGB")
    scale, plain = shot.width / 320, Image.open(PICTURE).convert("RGB")
    masked = (60, 60), (90, 50), (50, 90)
    bare = (115, 100), (250, 40), (60, 250)
    changes = [difference(shot, (x * scale, y * scale), plain, (x, y)) for x, y in (*masked, *bare)]
    assert min(changes[: len(masked)]) > 30 > max(changes[len(masked) :])
    bars = [line.split("\n") for line in page.locator(".waterfall li").all_inner_texts()]
    assert bars[0] == ["Inference", "8.0\xa0ms"]
    assert bars[1] == ["To the worker and back", "2.0\xa0ms"]
    page.set_input_files("#files", PICTURE)
    answered(page, 2)
    assert page.locator(".classes li").all_inner_texts() == ["tabby\n75\xa0%", "lynx\n20\xa0%"]
    python = page.locator(".pane").first.locator("pre").nth(1).text_content()
    assert 'for found in answer["classification"]["top"]:' in python


def difference(shot: Any, at: tuple[float, float], plain: Any, there: tuple[int, int]) -> int:
    seen: tuple[int, ...] = shot.getpixel((round(at[0]), round(at[1])))
    under: tuple[int, ...] = plain.getpixel(there)
    return max(abs(a - b) for a, b in zip(seen, under, strict=True))


def test_a_picture_that_is_none_and_a_model_that_is_none(page: Any, opened: Opened) -> None:
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#files", [broken, {**broken, "name": "a.txt", "mimeType": "text/plain"}])
    page.wait_for_selector(".pane [role=alert]:has-text('IMAGE_NOT_DECODABLE')")
    assert "1 file of these is no picture" in page.inner_text("#problem")
    page.fill("#add", "nobody")
    page.click("button:text-is('Add')")
    page.wait_for_selector(".pane [role=alert]:has-text('MODEL_NOT_FOUND')")
    page.click("button[aria-label='Take nobody away']")
    assert page.locator(".pane").count() == 1
    opened.complaints = [one for one in opened.complaints if not re.search("40[04]|415", one)]


def test_the_camera_is_asked_about_again_and_again(page: Any) -> None:
    page.click("#camera")
    page.wait_for_selector("h3:has-text('pictures/s')")
    first = page.inner_text(".pane .facts code")
    until(page, f"document.querySelector('.pane .facts code').textContent !== {first!r}")
    size = page.locator(".pane canvas").evaluate("(canvas) => [canvas.width, canvas.height]")
    with page.expect_download() as kept:
        page.click("button:text-is('Save this frame')")
    with Image.open(kept.value.path()) as frame:
        assert [frame.format, *frame.size] == ["JPEG", *size]
    page.click("#camera")
    page.wait_for_selector("h3:has-text('the last picture')")
    assert page.inner_text("#camera") == "Use the camera"
