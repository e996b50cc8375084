"""The release before this one beside this one: on one Redis, with workers, control planes and
clients of either, and all of it upgraded and downgraded one by one under load.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos import invariants, setting, trial, upgrade
from tests.chaos.pool import Pool, Shape
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario
from tests.matrix import is_full
from tests.previous_release import unpacked

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SEED = 1
PACE = Pace(calm_s=0.4, quiet_s=1.0)
# A caller of the one release at a control plane of the other, in a process of its own.
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
        "fleet": client.fleet().registry_available,
        "events": len(list(client.events(last=5))),
    }))
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("release"))


def scenarios(previous: Path) -> tuple[Scenario, ...]:
    """The quick ones, or all there is."""
    if not is_full():
        return (upgrade.PART,)
    return (upgrade.PART, upgrade.ALL, upgrade.downgrade_to(previous))


def calls(release: Path | None, address: str, picture: Path) -> dict[str, object]:
    """What a client of a release gets of a control plane."""
    environ = dict(os.environ)
    if release is not None:
        environ["PYTHONPATH"] = str(release)
    command = [sys.executable, "-c", CALLER, address, str(picture), setting.MODELS[0]]
    done = subprocess.run(
        command, env=environ, cwd=release, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


async def test_two_releases_share_a_pool(
    previous: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "grey.png"
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        async with Pool(Shape(release=previous), Path(folder)) as pool:
            await setting.prepare(pool)
            picture.write_bytes((await setting.pictures(pool))[0].encoded)
            for scenario in scenarios(previous):
                report = await trial.run(pool, scenario, PACE, Rate(), SEED)
                with capsys.disabled():
                    print(f"\n{report.text()}")  # noqa: T201 - what the run was for
                assert not report.failed, f"{report.text()}\n{pool.last_words()}"
            # Clients of either release, at a control plane of either.
            told = [
                calls(release, door.client.address, picture)
                for release in (previous, None)
                for door in pool.control_planes.values()
            ]
            listed = await invariants.listing(pool, "control-plane-0")
            assert str(previous) in str(told[0].pop("from"))
            assert str(previous) not in str(told[-1].pop("from"))
            for one in told[1:-1]:
                one.pop("from")
            assert told[0]["models"] == sorted(listed)
            assert all(one == told[0] for one in told)
