"""Models declared at start, a changeover and a schedule, in a whole pool of real processes."""

import tempfile
from pathlib import Path

import pytest

from tests.waiting import until
from yolopool import Client, errors
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
SHAPES = demo.find().models["shapes"]


def test_day_and_night() -> None:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:1", load=("day",))
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            for name in ("day", "night", "late"):
                demo.register(client, name, SHAPES)
            until("the declared model is up", lambda: held(client) == {"day@1"})
            assert client.model("day").versions[0].pinned
            done = client.changeover(["night"], ["day"], pin=True)
            assert [one.name for one in done.prepared] == ["night@1"]
            assert done.released == ("day@1",)
            assert "night@1" in held(client)
            assert client.model("day").versions[0].wanted_replicas == 0
            with pytest.raises(errors.ModelNotFound):
                client.changeover(["day", "absent"], ["night"])
            # A minute ahead of every minute: what it prepares is wanted at once.
            made = client.set_schedule("late", "* * * * *", ["late"], ["night"], lead_s=60.0)
            assert made.last_unix_s == 0.0
            until("the schedule has loaded it", lambda: "late@1" in held(client))
            assert [one.name for one in client.schedules()] == ["late"]
            client.delete_schedule("late")
            assert client.schedules() == ()


def held(client: Client) -> set[str]:
    replicas = client.workers()[0].replicas
    return {one.model for one in replicas if one.state == "HOT"}
