"""The stage of every scenario: models on the pool, each twice, and pictures with known answers."""

from contextlib import suppress

from benchmarks.harness import dataset
from tests.chaos import invariants
from tests.chaos.pictures import Box, Picture, asked, boxes_of, grey
from tests.chaos.pool import Pool, settled
from tests.chaos.traffic import Door
from yolopool.errors import YolopoolError
from yolopool.v1 import types_pb2

MODELS, SPARE = ("chaos/one", "chaos/two", "chaos/three"), "chaos/spare"
REPLICAS = 2
IMAGE_SIZE = 320
GREYS = range(20, 220)
LOAD_S = 30.0


async def prepare(pool: Pool) -> None:
    """Registers the models and loads those that will be asked, each twice."""
    client, importer = pool.control_planes["control-plane-0"].client, pool.processes["importer"]
    for name in (*MODELS, SPARE):
        version = await client.register(name, dataset.DEMO_WEIGHTS, image_size=IMAGE_SIZE)
        assert version.state == "READY", f"{version.name}: {version.reason} {version.message}"
        # One import is enough: all others are of the same bytes, and adopt its pack.
        await importer.stop()
    importer.start()
    for name in MODELS:
        await client.load(name, replicas=REPLICAS)
    complaint = await settled(lambda: invariants.desired_differs(pool), LOAD_S)
    assert not complaint, complaint


async def pictures(pool: Pool) -> tuple[Picture, ...]:
    """Of simulated devices known beforehand, of real ones as they answer before any fault."""
    door = next(iter(pool.control_planes.values()))
    model = (await door.client.model(MODELS[0])).versions[0]
    if pool.shape.device == "sim":
        return grey(GREYS, len(model.class_names))

    async def ask(image: bytes) -> tuple[Box, ...]:
        return boxes_of(await door.ask(MODELS[0], image, LOAD_S))

    return await asked(dataset.encoded(), ask)


async def held(pool: Pool) -> list[tuple[Door, str]]:
    """Every worker that answers with every model it serves, as a direct caller resolves them. The
    workers are asked: a control plane would tell the same, and may be away.
    """
    found: list[tuple[Door, str]] = []
    for door in pool.workers.values():
        with suppress(YolopoolError):
            for replica in (await door.inventory()).worker.replicas:
                if types_pb2.ReplicaState.Name(replica.state).endswith(invariants.SERVING):
                    found.append((door, replica.version.model))
    return [route for route in found if route[1] in MODELS]
