"""Many images by both clients: in order, some of them failing, folders and patterns."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.scripted_pool import NO_IMAGE, ScriptedPool
from yolopool import AsyncClient, Client, errors
from yolopool.client.media.outcomes import ImageAnswer

Ask = Callable[..., list[ImageAnswer]]


@pytest.fixture(scope="module")
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, pool: ScriptedPool) -> Ask:
    def blocking(*args: Any, **options: Any) -> list[ImageAnswer]:
        with Client(pool.address) as client:
            return list(client.detect_many(*args, **options))

    def inside(*args: Any, **options: Any) -> list[ImageAnswer]:
        async def run() -> list[ImageAnswer]:
            async with AsyncClient(pool.address) as client:
                return [answer async for answer in client.detect_many(*args, **options)]

        return asyncio.run(run())

    return blocking if request.param == "blocking" else inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (160, 120), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(NO_IMAGE)
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "clip.mp4").touch()
    return tmp_path


def test_a_folder_in_order_whatever_fails(ask: Ask, pool: ScriptedPool, folder: Path) -> None:
    pool.script.calls.clear()
    seen: list[tuple[int, int]] = []
    answers = ask(folder, "shapes", window=3, progress=lambda *far: seen.append(far))
    assert [Path(answer.name).name for answer in answers] == [f"{n}.png" for n in range(6)]
    assert [answer.index for answer in answers] == list(range(6))
    reasons = [getattr(answer.error, "reason", None) for answer in answers]
    assert reasons == [None, None, None, "IMAGE_NOT_DECODABLE", "IMAGE_EMPTY", None]
    assert answers[0].result().class_name == ("square", "circle")
    with pytest.raises(errors.ImageEmpty):
        answers[4].result()
    assert seen == [(number + 1, 6) for number in range(6)]
    assert len(pool.script.calls) == 5


def test_every_kind_of_image_from_an_iterator(ask: Ask, folder: Path) -> None:
    def given() -> Iterator[Any]:
        yield folder / "0.png"
        yield (folder / "1.png").read_bytes()
        yield folder / "none.png"
        yield Image.open(folder / "2.png")
        yield str(folder / "[5].png")

    seen: list[tuple[int, int]] = []
    answers = ask(given(), "shapes", progress=lambda *far: seen.append(far))
    names = [Path(answer.name).name for answer in answers]
    assert names == ["0.png", "image 1", "none.png", "image 3", "5.png"]
    assert [type(answer.error) for answer in answers] == [
        type(None), type(None), FileNotFoundError, type(None), type(None),
    ]  # fmt: skip
    assert seen[-1] == (5, 0)


def test_what_no_image_could_be_asked_with(ask: Ask, folder: Path) -> None:
    with pytest.raises(errors.InvalidOption, match="no image: give it to detect_video"):
        ask(folder / "clip.mp4", "shapes")
    with pytest.raises(errors.InvalidOption, match="calls in flight"):
        ask(folder, "shapes", window=0)
    with pytest.raises(TypeError, match="colour"):
        ask(folder, "shapes", colour=True)
    assert ask([], "shapes") == []


def test_an_error_of_all_is_told_of_each(ask: Ask, folder: Path) -> None:
    answers = ask(f"{folder}/[012].png", "MODEL_NOT_FOUND")
    assert [type(answer.error) for answer in answers] == [errors.ModelNotFound] * 3


def test_who_leaves_early_leaves_no_call_behind(pool: ScriptedPool, folder: Path) -> None:
    with Client(pool.address) as client:
        for answer in client.detect_many(folder, "shapes", window=2):
            assert answer.index == 0
            break
        assert client.detect(folder / "0.png", "shapes").class_name == ("square", "circle")
