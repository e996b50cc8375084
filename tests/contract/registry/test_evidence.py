"""What control planes tell each other of rollouts: the one in memory and the one in Redis."""

from control_plane.store.registry import Registry


async def test_what_each_control_plane_told_last(registry: Registry) -> None:
    texts = registry.evidence
    assert await texts.told("r:0") == {}
    await texts.tell("r:0", "a", "1")
    await texts.tell("r:0", "b", "2")
    await texts.tell("r:0", "a", "3")
    await texts.tell("r:1", "a", "4")
    assert await texts.told("r:0") == {"a": "3", "b": "2"}
    await texts.forget("r:0")
    assert await texts.told("r:0") == {}
    assert await texts.told("r:1") == {"a": "4"}
    await texts.forget("none")


async def test_it_is_no_desired_state(registry: Registry) -> None:
    before = (await registry.desired()).revision
    await registry.evidence.tell("r:0", "a", "1")
    assert (await registry.desired()).revision == before
