"""The release before this one beside this one: on one Redis, with workers, control planes and
clients of either, and all of it upgraded and downgraded one by one under load.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.chaos import invariants, setting, trial, upgrade
from tests.chaos.pool import Pool, Shape
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario
from tests.previous_release import unpacked

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SEED = 1
PACE = Pace(calm_s=0.4, quiet_s=1.0)
# A caller of one release, in a process of its own.
CALLER = """
import json, sys
import yolopool
from yolopool import Client
with Client(sys.argv[1]) as client:
    found = client.detect(sys.argv[2], model=sys.argv[3])
    streamed = [one.detections.model for one in client.detect_stream([sys.argv[2]], sys.argv[3])]
    print(json.dumps({
        "from": yolopool.__file__,
        "boxes": len(found),
        "streamed": streamed,
        "models": sorted(one.name for model in client.models() for one in model.versions),
        "workers": sorted(one.id for one in client.workers()),
        "registry": client.fleet().registry_available,
        "events": len(list(client.events(last=5))),
    }))
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("release"))


async def play(
    pool: Pool, scenarios: Sequence[Scenario], capsys: pytest.CaptureFixture[str]
) -> None:
    for scenario in scenarios:
        report = await trial.run(pool, scenario, PACE, Rate(), SEED)
        with capsys.disabled():
            print(f"\n{report.text()}")  # noqa: T201 - what the run was for
        assert not report.failed, f"{report.text()}\n{pool.last_words()}"


def told(release: Path | None, address: str, picture: Path) -> dict[str, object]:
    """What a client of a release (None: this one) gets of a control plane."""
    environ = dict(os.environ)
    if release is not None:
        environ["PYTHONPATH"] = str(release)
    command = [sys.executable, "-c", CALLER, address, str(picture), setting.MODELS[0]]
    done = subprocess.run(
        command, env=environ, cwd=release, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    assert (str(release) in str(answer.pop("from"))) == (release is not None)
    return answer


async def test_two_releases_share_a_pool(
    previous: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = Shape(releases=upgrade.of(previous, upgrade.HALF))
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        async with Pool(shape, Path(folder)) as pool:
            await setting.prepare(pool)
            await play(pool, [upgrade.SHARED], capsys)
            picture = tmp_path / "grey.png"
            picture.write_bytes((await setting.pictures(pool))[0].encoded)
            answers: list[Mapping[str, object]] = await asyncio.gather(
                *(
                    asyncio.to_thread(told, release, door.client.address, picture)
                    for release in (previous, None)
                    for door in pool.control_planes.values()
                )
            )
            listed = await invariants.listing(pool, "control-plane-0")
    assert answers[0]["models"] == sorted(listed)
    assert answers[0]["workers"] == sorted(upgrade.WORKERS)
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.matrix(sample=0)
async def test_a_pool_is_upgraded_one_by_one_and_back(
    previous: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = Shape(releases=upgrade.of(previous, upgrade.ALL))
    scenarios = (
        upgrade.turn_to(None, "a rolling upgrade"),
        upgrade.turn_to(previous, "a rolling downgrade"),
    )
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        async with Pool(shape, Path(folder)) as pool:
            await setting.prepare(pool)
            await play(pool, scenarios, capsys)
