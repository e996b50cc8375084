"""Who may call what: every method by every kind of caller, through a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory

from control_plane.gateway.kserve.grpc_door import SERVICE
from control_plane.identity.access import OPEN, REFLECTION, RULES, About
from control_plane.services.register import SERVICES
from tests.contract.control_plane_rig import Rig
from tests.contract.guarded_rig import (
    LIMITED,
    LIMITED_TO_B,
    NO_ROLE,
    REFUSED,
    Guarded,
    role_of,
)
from tests.contract.oidc_issuer import OidcIssuer
from yolopool.client.async_client import AsyncClient
from yolopool.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    GrantNeeded,
    InvalidOption,
    KeyNotFound,
    ModelNotFound,
    RoleNeeded,
    YolopoolError,
)

HEALTH = {f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")}
METHODS = [
    f"/{service}/{method.name}"
    for service in (*SERVICES, SERVICE, REFLECTION.removeprefix("/"))
    for method in descriptor_pool.Default().FindServiceByName(service).methods
]


def request_about(method: str, model: str) -> Any:
    """A request of the method that names the model wherever it names one."""
    _, service, name = method.split("/")
    described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    request: Any = message_factory.GetMessageClass(described.input_type)()
    if name == "Changeover":
        request.prepare.add(model=model)
    elif name == "SetSchedule":
        request.schedule.name, request.schedule.cron = "day", "0 6 * * *"
        request.schedule.change.prepare.add(model=model)
    elif name == "DetectStream":
        request.opening.model = model
    elif method in RULES and RULES[method].about is About.MODEL:
        names = ("model", "model_name", "name", "alias")
        named = next(one for one in names if hasattr(request, one))
        setattr(request, named, f"{model}:any" if named == "alias" else model)
    return request


@pytest.fixture(scope="module")
def guarded_loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture(scope="module")
def guarded(
    guarded_loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    rig = Guarded(folder, OidcIssuer(folder / "issuer"))
    guarded_loop.run_until_complete(rig.__aenter__())
    yield rig
    guarded_loop.run_until_complete(rig.__aexit__())


def test_every_method_has_a_rule_and_no_rule_is_of_another() -> None:
    assert set(METHODS) == set(RULES) | {method for method in OPEN if "." in method} - HEALTH
    assert not set(RULES) & OPEN


def expected(method: str, kind: str) -> type[YolopoolError] | None:
    """The error of a call about model a; None: it is allowed, whatever it answers then."""
    if method in OPEN:
        return None
    if kind == "nobody":
        return CredentialsMissing
    if kind in REFUSED:
        return CredentialsInvalid
    rule = RULES[method]
    if kind == NO_ROLE or not role_of(kind).allows(rule.role):
        return RoleNeeded
    if kind in LIMITED and rule.about is About.FLEET:
        return GrantNeeded
    return ModelNotFound if kind in LIMITED_TO_B and rule.about is About.MODEL else None


@pytest.mark.matrix(sample=24)
@pytest.mark.parametrize("method", METHODS)
def test_the_matrix(guarded: Guarded, guarded_loop: asyncio.AbstractEventLoop, method: str) -> None:
    seen, right = {}, {}
    for kind in ["nobody", *guarded.texts]:
        outcome: object = None
        right[kind] = expected(method, kind)
        # What is allowed may go on for ever.
        limit_s = 5 if right[kind] else 0.3
        try:
            call = guarded.call(method, request_about(method, "a"), kind, limit_s)
            guarded_loop.run_until_complete(call)
        except (CredentialsMissing, CredentialsInvalid, RoleNeeded, GrantNeeded) as error:
            outcome = type(error)
        except ModelNotFound:
            outcome = ModelNotFound if kind in LIMITED_TO_B else None
        except YolopoolError:
            pass
        seen[kind] = outcome
    assert seen == right


# --- what a caller sees -----------------------------------------------------------------------


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with Guarded(tmp_path) as rig:
        yield rig


async def test_what_is_not_granted_looks_as_if_it_did_not_exist(rig: Guarded) -> None:
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        for name in ("alpha", "beta"):
            await admin.register(name, _file(rig, name), wait=False)
    async with AsyncClient(rig.addresses.grpc, rig.secret("granted")) as caller:
        assert [model.name for model in await caller.models()] == ["alpha"]
        said: dict[str, list[str]] = {}
        for name in ("beta", "none"):
            with pytest.raises(ModelNotFound) as raised:
                await caller.model(name)
            said[name] = [raised.value.message]
            for call in (
                caller.model(f"alpha@{name}"), caller.model(f"alpha:{name}"),
                caller.explain_request(name), caller.detect(b"", model=f"alpha@{name}"),
            ):  # fmt: skip
                with pytest.raises(YolopoolError) as refused:
                    await call
                said[name].append(refused.value.message)
            said[name] = [text.replace(name, "X") for text in said[name]]
        assert said["beta"] == said["none"]
        told = [event.model async for event in caller.events(follow=False)]
        assert set(told) == {"", "alpha@1"}
        with pytest.raises(ModelNotFound):  # alpha is allowed, the other is not
            await caller.changeover(["alpha"], ["beta"])


def _file(rig: Guarded, text: str) -> Path:
    path = rig.settings.data_dir / f"{text}.pt"
    path.write_bytes(text.encode())
    return path


async def test_keys_are_made_rotated_and_revoked(rig: Guarded) -> None:
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        made = await admin.create_key("detect", models=["a*"], label="camera 7", lifetime_s=60)
        assert made.secret not in repr(made)
        assert (made.key.role, made.key.models, made.key.label) == ("detect", ("a*",), "camera 7")
        async with AsyncClient(rig.addresses.grpc, made.secret) as caller:
            assert await caller.models() == ()
            other = await admin.rotate_key(made.key.id, overlap_s=60)
            assert await caller.models() == ()  # the former secret, for a minute
            await admin.rotate_key(made.key.id)
            with pytest.raises(CredentialsInvalid):
                await caller.models()
        async with AsyncClient(rig.addresses.grpc, other.secret) as caller:
            with pytest.raises(CredentialsInvalid):
                await caller.models()
        last = await admin.rotate_key(made.key.id)
        async with AsyncClient(rig.addresses.grpc, last.secret) as caller:
            assert await caller.models() == ()
            revoked = await admin.revoke_key(made.key.id)
            assert revoked.revoked_unix_s
            assert await admin.revoke_key(made.key.id) == revoked
            with pytest.raises(CredentialsInvalid):
                await caller.models()
        assert next(iter(await admin.list_keys())).id == made.key.id
        too_many = [f"a{number}" for number in range(65)]
        for wrong in ({"models": [""]}, {"models": too_many}, {"label": "a\n"}, {"lifetime_s": -1}):
            with pytest.raises(InvalidOption):
                await admin.create_key("detect", **wrong)
        with pytest.raises(KeyNotFound):
            await admin.revoke_key("none")


async def test_the_registry_and_the_logs_hold_no_secret(
    rig: Guarded, capfd: pytest.CaptureFixture[str]
) -> None:
    async with AsyncClient(rig.addresses.grpc, rig.secret("admin")) as admin:
        made = await admin.create_key("detect")
        async with AsyncClient(rig.addresses.grpc, made.secret) as caller:
            with pytest.raises(RoleNeeded):
                await caller.list_keys()
    secret = made.secret.rpartition("_")[2]
    held = json.dumps([str(key) for key in (await rig.registry.desired()).api_keys.values()])
    told = "".join(capfd.readouterr())
    assert made.key.id in held
    assert secret not in held + told
    assert f"key:{made.key.id}" in told or made.key.id in told


async def test_the_first_admin_key_is_a_file_of_this_user_alone(tmp_path: Path) -> None:
    async with Rig(tmp_path, auth="keys") as rig:
        path = rig.settings.data_dir / "admin.key"
        for _ in range(200):
            if path.exists() and rig.plane.view.desired.api_keys:
                break
            await asyncio.sleep(0.02)
        assert path.stat().st_mode & 0o777 == 0o600
        async with AsyncClient(rig.addresses.grpc, path.read_text().strip()) as admin:
            assert [key.role for key in await admin.list_keys()] == ["admin"]
        with pytest.raises(CredentialsMissing):
            async with AsyncClient(rig.addresses.grpc) as nobody:
                await nobody.models()
