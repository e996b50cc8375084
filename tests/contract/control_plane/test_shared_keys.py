"""Two control planes on one Redis that ask who calls: a key is the same at both, as is a caller."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.caller import CALLER
from control_plane.leader.client import FLAG
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.types.access.api_key import Role
from tests.contract.control_plane_rig import Rig
from tests.contract.guarded_rig import issued
from tests.contract.redis_servers import any_kind, server
from yolopool.client.async_client import AsyncClient
from yolopool.errors import CredentialsInvalid, ModelNotFound, RoleNeeded
from yolopool.status import error_from_rpc
from yolopool.transport import bearer


@dataclass
class Two:
    leader: Rig
    follower: Rig
    secrets: dict[str, str]

    def client(self, plane: Rig, kind: str = "admin") -> AsyncClient:
        return AsyncClient(plane.addresses.grpc, self.secrets.get(kind, kind))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    kinds = {
        "admin": issued(Role.ADMIN), "pool": issued(Role.CONTROL_PLANE),
        "granted": issued(Role.OPERATE, ("a*",)), "detect": issued(Role.DETECT),
    }  # fmt: skip
    (tmp_path / "redis").mkdir()
    with server(any_kind(), tmp_path / "redis"):
        url = f"unix://{tmp_path}/redis/redis.sock"
        first = RedisRegistry(url)
        async with asyncio.timeout(20):
            while True:
                try:
                    await first.create()
                    break
                except Exception:  # it is starting
                    await asyncio.sleep(0.05)
        for key, _ in kinds.values():
            await first.put_api_key(key)
        await first.close()
        planes = [
            Rig(
                tmp_path / name, RedisRegistry(url), redis=url, auth="keys",
                pool_key=kinds["pool"][1].text,
            )
            for name in ("one", "two")
        ]  # fmt: skip
        async with planes[0] as one, planes[1] as other:
            async with asyncio.timeout(20):
                while not (one.plane.view.leader_address and other.plane.view.leader_address):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            leads = one if one.plane._is_leader() else other
            yield Two(
                leads,
                other if leads is one else one,
                {kind: secret.text for kind, (_, secret) in kinds.items()},
            )


async def refused(client: AsyncClient) -> None:
    """Waits until a key is none."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.models()
            except CredentialsInvalid:
                return
            await asyncio.sleep(0.02)


async def admitted(client: AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await client.models()
                return
            except CredentialsInvalid:
                await asyncio.sleep(0.02)


async def test_a_key_made_at_one_is_valid_at_the_other_and_ends_at_both(two: Two) -> None:
    for here, there in ((two.leader, two.follower), (two.follower, two.leader)):
        async with two.client(here) as admin:
            made = await admin.create_key("detect")
            async with two.client(here, made.secret) as near, two.client(there, made.secret) as far:
                assert await near.models() == ()
                await admitted(far)
                rotated = await admin.rotate_key(made.key.id)
                await refused(far)
                async with two.client(there, rotated.secret) as renewed:
                    await admitted(renewed)
                    await admin.revoke_key(made.key.id)
                    with pytest.raises(CredentialsInvalid):
                        await near.models()
                    await refused(renewed)


async def test_a_call_that_is_forwarded_stays_its_callers(
    two: Two, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it may, and what it may see; the leader's audit has its name."""
    file = two.leader.settings.data_dir / "weights.pt"
    for name in ("alpha", "beta"):
        file.write_bytes(name.encode())
        async with two.client(two.follower) as admin:
            await admin.register(name, file, wait=False)
    async with two.client(two.follower, "granted") as caller:
        assert [model.name for model in await caller.models()] == ["alpha"]
        with pytest.raises(ModelNotFound):
            await caller.delete("beta")
        capfd.readouterr()
        await caller.delete("alpha")
    granted = two.secrets["granted"].split("_")[1]
    told = [line for line in "".join(capfd.readouterr()).splitlines() if "DeleteModel" in line]
    # Of both: the one that was called, and the one that did it.
    assert len(told) == 2
    assert all(f"key:{granted}" in line for line in told)
    async with two.client(two.follower, "detect") as caller:
        with pytest.raises(RoleNeeded):
            await caller.list_keys()


async def test_who_says_that_it_forwards_gains_nothing(two: Two) -> None:
    admin = {"name": "x", "role": "admin", "grants": ["*"], "tenant": ""}
    forged = ((FLAG, "plane-1"), (CALLER, json.dumps(admin)))
    for plane in (two.leader, two.follower):
        for kind in ("detect", "granted"):
            shown = (*bearer(two.secrets[kind]), *forged)
            async with grpc.aio.insecure_channel(plane.addresses.grpc) as channel:
                call: Any = channel.unary_unary("/yolopool.v1.KeyService/CreateKey")
                with pytest.raises(grpc.RpcError) as raised:
                    await call(b"\x20\x03", timeout=5, metadata=shown)
                assert isinstance(error_from_rpc(raised.value), RoleNeeded)
        # Nor does the key of control planes open anything by itself.
        async with two.client(plane, "pool") as pool:
            with pytest.raises(RoleNeeded):
                await pool.models()


async def test_a_leader_that_does_not_know_our_key_is_done_without(two: Two) -> None:
    async with two.client(two.leader) as admin:
        await admin.revoke_key(two.secrets["pool"].split("_")[1])
        async with two.client(two.follower) as caller:
            made = await caller.create_key("detect")
        async with two.client(two.leader, made.secret) as near:
            await admitted(near)
