"""A certificate of a worker speaks for its own workers, and an importer for its own imports."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.control_plane.test_joining import Pool
from tests.contract.control_plane.test_tls import Fleet, a_fleet, a_worker
from tests.contract.control_plane_rig import refused
from yolopool import errors
from yolopool.server.grpc_server import open_channel
from yolopool.tls.certificates import Certificates
from yolopool.tls.joining import join
from yolopool.transport import bearer
from yolopool.v1 import fleet_pb2, importing_pb2, importing_pb2_grpc, membership_pb2
from yolopool.v1.membership_pb2_grpc import MembershipServiceStub

NAMES = ("gpu", "gpu-1", "gpu-2")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = a_fleet(tmp_path_factory.mktemp("certs"))
    for name in NAMES:
        fleet.issue(name, "worker")
    return fleet


@pytest.fixture
async def pool(tmp_path: Path, fleet: Fleet) -> AsyncIterator[Pool]:
    async with Pool(tmp_path, fleet) as pool:
        yield pool


@asynccontextmanager
async def channel_of(pool: Pool, name: str) -> AsyncIterator[grpc.aio.Channel]:
    files = pool.certs.files(name)
    async with open_channel(pool.addresses.pool, Certificates(files)) as channel:
        yield channel


def joins(worker: fleet_pb2.Worker) -> Callable[[Any], Awaitable[Any]]:
    return lambda stub: stub.Join(membership_pb2.JoinRequest(worker=worker), timeout=5)


async def beat(stub: Any, worker: fleet_pb2.Worker) -> Any:
    """What a heartbeat is answered."""

    async def beats() -> AsyncIterator[membership_pb2.HeartbeatRequest]:
        yield membership_pb2.HeartbeatRequest(worker=worker)

    return await stub.Heartbeat(beats(), timeout=5).read()


async def test_a_worker_that_is_here_is_displaced_by_no_other_certificate(
    pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, forged = a_worker("gpu-1-cpu-0"), a_worker("gpu-1-cpu-0")
    exit = membership_pb2.ReportExitRequest(worker=mine.id, incarnation=mine.incarnation)
    leave = membership_pb2.LeaveRequest(worker=mine.id, incarnation=mine.incarnation)
    async with channel_of(pool, "gpu-1") as own, channel_of(pool, "gpu-2") as other:
        own_stub: Any = MembershipServiceStub(own)
        other_stub: Any = MembershipServiceStub(other)
        await joins(mine)(own_stub)
        for call in (
            joins(forged)(other_stub), beat(other_stub, mine),
            other_stub.ReportExit(exit, timeout=5), other_stub.Leave(leave, timeout=5),
        ):  # fmt: skip
            assert isinstance(await refused(call), errors.WorkerNotYours)
        told = "".join(capfd.readouterr())
        assert told.count("outcome=WORKER_NOT_YOURS") == 4
        assert "principal=certificate:gpu-2" in told
        assert pool.plane.view.workers[mine.id].incarnation == mine.incarnation
        assert (await beat(own_stub, mine)).lease_s > 0
        # Its successor, after a crash or beside it, is another process of the same certificate.
        await joins(forged)(own_stub)
        assert pool.plane.view.workers[mine.id].incarnation == forged.incarnation
        await own_stub.Leave(leave, timeout=5)


async def test_nothing_that_a_worker_says_names_the_process_of_another(pool: Pool) -> None:
    """By it the images that another worker has in hand would be taken for killers; and what is kept
    by process, such as its connections, would end with the wrong one.
    """
    mine, other = a_worker("gpu-1-cpu-0"), a_worker("gpu-2-cpu-0")
    base = membership_pb2.ReportExitRequest(worker=other.id, requests=["a request"])
    process, of_process = type(base)(), type(base)()
    for report in (process, of_process):
        report.CopyFrom(base)
    process.incarnation = mine.incarnation
    of_process.incarnation, of_process.io_process = other.incarnation, mine.incarnation
    posing = a_worker(other.id)
    posing.incarnation = mine.incarnation
    async with channel_of(pool, "gpu-1") as one, channel_of(pool, "gpu-2") as two:
        one_stub: Any = MembershipServiceStub(one)
        two_stub: Any = MembershipServiceStub(two)
        await joins(mine)(one_stub)
        assert isinstance(await refused(joins(posing)(two_stub)), errors.WorkerNotYours)
        await joins(other)(two_stub)
        for report in (process, of_process):
            call = two_stub.ReportExit(report, timeout=5)
            assert isinstance(await refused(call), errors.WorkerNotYours)
        assert isinstance(await refused(joins(posing)(two_stub)), errors.WorkerNotYours)
        await joins(mine)(one_stub)  # its own it may name again


async def test_an_id_that_is_free_is_its_certificates_all_the_same(pool: Pool) -> None:
    async with channel_of(pool, "gpu-1") as channel:
        stub: Any = MembershipServiceStub(channel)
        for id_ in ("gpu-2-cpu-0", "gpu-2", "gpu-10-cpu", "plane", "w1"):
            error = await refused(joins(a_worker(id_))(stub))
            assert isinstance(error, errors.WorkerNotYours)
            assert "--id gpu-1" in error.message
        for id_ in ("gpu-1", "gpu-1-cpu-0", "gpu-1-cuda-GPU-5b3e"):
            await joins(a_worker(id_))(stub)


async def test_a_shorter_name_takes_no_worker_of_a_process_that_joined(pool: Pool) -> None:
    """`gpu-1-...` begins with `gpu-`, too."""
    await join(pool.joining((await pool.token("gpu-1")).token), 0.0)
    async with channel_of(pool, "gpu") as channel:
        stub: Any = MembershipServiceStub(channel)
        assert isinstance(await refused(joins(a_worker("gpu-1-cpu"))(stub)), errors.WorkerNotYours)
        await joins(a_worker("gpu-3-cpu"))(stub)


async def test_a_key_takes_no_worker_that_a_certificate_holds(pool: Pool) -> None:
    """Keys name nobody, but whose worker is here keeps it."""
    mine = a_worker("gpu-1-cpu-0")
    async with pool.admin() as admin:
        keys = [(await admin.create_key("worker")).secret for _ in range(2)]
    async with channel_of(pool, "gpu-1") as channel:
        await joins(mine)(MembershipServiceStub(channel))
    ca = (pool.certs.folder / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(ca)
    async with grpc.aio.secure_channel(pool.addresses.grpc, credentials) as channel:
        stub: Any = MembershipServiceStub(channel)

        def by(key: str, worker: fleet_pb2.Worker) -> Any:
            request = membership_pb2.JoinRequest(worker=worker)
            return stub.Join(request, timeout=5, metadata=bearer(key))

        assert isinstance(await refused(by(keys[0], mine)), errors.WorkerNotYours)
        await by(keys[0], a_worker("any-name"))
        error = await refused(by(keys[1], a_worker("any-name")))
        assert isinstance(error, errors.WorkerNotYours)


async def test_a_process_does_not_call_itself_what_another_is(pool: Pool) -> None:
    """With a token that has no name."""
    await join(replace(pool.joining((await pool.token("gpu-1")).token)), 0.0)
    async with channel_of(pool, "w1") as channel:
        await joins(a_worker("w1-cpu"))(MembershipServiceStub(channel))
    made = await pool.token("")
    wrong = ("plane", "plane-7", "control-plane", "control-plane-1", "gpu-1", "gpu", "w1")
    for name in wrong:
        how = replace(pool.joining(made.token, name), folder=pool.folder / "mine")
        with pytest.raises(errors.FailedPrecondition, match=name):
            await join(how, 0.0)
    # The token is as good as before, and a name that only looks alike is free.
    how = replace(pool.joining(made.token, "gpu-1-b"), folder=pool.folder / "mine")
    await join(how, 0.0)
    # An admin says what a name is worth.
    given = await pool.token("plane-7")
    await join(replace(pool.joining(given.token), folder=pool.folder / "given"), 0.0)


@asynccontextmanager
async def leased(pool: Pool) -> AsyncIterator[tuple[importing_pb2.ImportJob, Any, Any]]:
    """A job that gpu-1 holds, and the stubs of gpu-1 and gpu-2."""
    async with channel_of(pool, "gpu-1") as own, channel_of(pool, "gpu-2") as other:
        holder: Any = importing_pb2_grpc.ImportServiceStub(own)
        claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=5)
        job = (await holder.ClaimImport(claim, timeout=10)).job
        assert job.version.model
        yield job, holder, importing_pb2_grpc.ImportServiceStub(other)


async def registered(pool: Pool, name: str) -> None:
    async with pool.admin() as admin:
        path = pool.folder / "weights.pt"
        path.write_bytes(name.encode())
        await admin.register(name, path, wait=False)


def reports(pool: Pool, job: importing_pb2.ImportJob) -> list[importing_pb2.ReportImportRequest]:
    """One of each kind, as the holder would send them."""
    base = importing_pb2.ReportImportRequest(importer="i1", version=job.version)
    progress, pack, failure = (type(base).FromString(base.SerializeToString()) for _ in range(3))
    progress.progress.fraction = 0.9
    pack.pack.CopyFrom(pool.pack(job))
    failure.failure.reason, failure.failure.message = "ARTIFACT_UNSAFE", "no"
    return [progress, pack, failure]


async def test_only_who_holds_an_import_reports_on_it(pool: Pool) -> None:
    await registered(pool, "a")
    async with leased(pool) as (job, holder, other):
        for report in reports(pool, job):
            error = await refused(other.ReportImport(report, timeout=5))
            assert isinstance(error, errors.ImportNotYours)
            # Nor does it learn by which name it could.
            stranger = type(report).FromString(report.SerializeToString())
            stranger.importer = "i2"
            assert "i1" not in (await refused(other.ReportImport(stranger, timeout=5))).message
        _, pack, failure = reports(pool, job)
        await holder.ReportImport(pack, timeout=5)
        (ready,) = (await pool.registry.desired()).versions.values()
        assert ready.state == "READY"
        # What is READY stays as it is, whoever says what.
        wrong = importing_pb2.ReportImportRequest.FromString(pack.SerializeToString())
        wrong.pack.class_names[:] = ["forged"]
        await other.ReportImport(wrong, timeout=5)
        for stub in (holder, other):
            assert isinstance(
                await refused(stub.ReportImport(failure, timeout=5)), errors.ImportNotYours
            )
        assert (await pool.registry.desired()).versions[ready.key] == ready
        await holder.ReportImport(pack, timeout=5)  # its answer was lost


async def test_what_failed_stays_failed(pool: Pool) -> None:
    await registered(pool, "a")
    async with leased(pool) as (job, holder, other):
        _, pack, failure = reports(pool, job)
        await holder.ReportImport(failure, timeout=5)
        for stub in (holder, other):
            assert isinstance(
                await refused(stub.ReportImport(pack, timeout=5)), errors.ImportNotYours
            )
        (failed,) = (await pool.registry.desired()).versions.values()
        assert (failed.state, failed.reason) == ("FAILED", "ARTIFACT_UNSAFE")
