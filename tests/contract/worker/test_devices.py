"""Devices as the real pynvml sees them, through a driver library made for the test."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from benchmarks.harness.worker import Worker
from tests.contract.worker.test_worker import ControlPlane
from worker.hardware import allocator, cpu_sets
from worker.hardware.devices import BrokenGpu, discover, find
from worker.hardware.host import Host, resident_bytes
from worker.process.exit_status import DEVICES_LOST
from yolopool.errors import InvalidOption
from yolopool.server.grpc_server import GrpcServer
from yolopool.v1 import membership_pb2_grpc

GIB = 2**30
ASK = """
import json, os, sys
from worker.hardware import devices
from yolopool.errors import InvalidOption
try:
    found = devices.discover(sys.argv[1], os.environ)
except InvalidOption as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([[d.kind, d.id, d.name, d.memory_bytes, dict(d.environment)] for d in found]))
assert not {"torch", "ultralytics", "cv2"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver library in it."""
    if shutil.which("gcc") is None or not Path("/usr/include/stdlib.h").exists():
        pytest.skip("the driver library of these tests is built with gcc and libc6-dev")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    library = folder / "libnvidia-ml.so.1"
    compiler = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(source)]
    subprocess.run(compiler, check=True)
    return folder


def ask(spec: str, driver: Path | None, **told: str) -> Any:
    """What `discover` finds in a fresh process: a list of devices, or the error's message."""
    environ = {
        k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVIDIA_", "LD_LIB"))
    } | told
    if driver is not None:
        environ["LD_LIBRARY_PATH"] = str(driver)
    done = subprocess.run(
        [sys.executable, "-c", ASK, spec], env=environ, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def ids(answer: Any) -> list[str]:
    assert isinstance(answer, list), answer
    return [device[1] for device in answer]


def gpu(index: int) -> str:
    return f"cuda:GPU-{index:08x}-0000"


def mig(index: int, place: int) -> str:
    return f"cuda:MIG-{index:08x}-{place:04x}"


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("spec", ["auto", "cuda"])
def test_finds_every_gpu(driver: Path, spec: str, count: int) -> None:
    answer = ask(spec, driver, FAKE_GPUS=str(count))
    assert ids(answer) == [gpu(index) for index in range(count)]
    assert answer[0] == [
        "cuda",
        gpu(0),
        "NVIDIA Fake",
        80 * GIB,
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-00000000-0000"},
    ]


def test_finds_slices_in_place_of_their_gpu(driver: Path) -> None:
    answer = ask("auto", driver, FAKE_GPUS="3", FAKE_MIG="1", FAKE_SLICES=str(0b100101))
    assert ids(answer) == [gpu(0), mig(1, 0), mig(1, 2), mig(1, 5), gpu(2)]
    assert answer[1][2:4] == ["NVIDIA Fake MIG 1g.10gb", 10 * GIB]
    assert answer[1][4]["CUDA_VISIBLE_DEVICES"] == "MIG-00000001-0000"


def test_takes_only_the_named_ones_in_their_order(driver: Path) -> None:
    machine = {"FAKE_GPUS": "3", "FAKE_MIG": "1", "FAKE_SLICES": "3"}
    spec = f"{mig(1, 1)},GPU-00000000-0000,cpu,sim:2,{mig(1, 1)}"
    found = ids(ask(spec, driver, **machine))
    assert found == [mig(1, 1), gpu(0), "cpu", "sim:0", "sim:1"]
    # The GPU that has been cut into slices is no device itself.
    answer = ask(gpu(1), driver, **machine)
    assert "no CUDA device GPU-00000001-0000 here" in answer
    assert mig(1, 0) in answer


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,0", [gpu(1), gpu(0)]),
        ("GPU-00000003-0000,2", [gpu(3), gpu(2)]),
        ("GPU-00000002", [gpu(2)]),
        ("0,9,1", [gpu(0)]),
        ("0,-1,1", [gpu(0)]),
        ("4", [mig(4, 0), mig(4, 1)]),
        ("MIG-00000004-0001,0", [mig(4, 1), gpu(0)]),
    ],
)
def test_respects_visible_devices(driver: Path, visible: str, expected: list[str]) -> None:
    machine = {"FAKE_GPUS": "5", "FAKE_MIG": "4", "FAKE_SLICES": "3"}
    assert ids(ask("auto", driver, CUDA_VISIBLE_DEVICES=visible, **machine)) == expected


def test_a_worker_finds_itself_in_the_environment_made_for_it(driver: Path) -> None:
    machine = {"FAKE_GPUS": "2", "FAKE_MIG": "1", "FAKE_SLICES": "3"}
    for _, name, _, _, environment in ask("cuda", driver, **machine):
        assert ids(ask(name, driver, **machine, **environment)) == [name]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES='' hides all"),
        ({"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "-1"}, "hides all GPUs"),
        ({"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "hides all GPUs"),
        ({"FAKE_INIT": "999", "CUDA_VISIBLE_DEVICES": ""}, "hides all GPUs"),
        ({"FAKE_GPUS": "1", "FAKE_LOST": "0", "CUDA_VISIBLE_DEVICES": "-1"}, "hides all GPUs"),
        ({"FAKE_GPUS": "0", "NVIDIA_VISIBLE_DEVICES": "none"}, "shows no GPU to this process"),
        ({"FAKE_INIT": "9"}, "kernel module is not loaded"),
    ],
)
def test_serves_the_cpu_where_there_is_no_gpu_and_says_why(
    driver: Path, told: dict[str, str], why: str
) -> None:
    answer = ask("cuda", driver, **told)
    assert answer.startswith("no CUDA device: ")
    assert why in answer
    if why == "kernel module is not loaded" and Host().has_nvidia_hardware():
        pytest.skip("this machine has an NVIDIA GPU")
    assert ids(ask("auto", driver, **told)) == ["cpu"]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"FAKE_GPUS": "0"}, "shows no GPU to this process"),
        ({"FAKE_GPUS": "1", "FAKE_LOST": "0"}, "no GPU answers: GPU 0: "),
        ({"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "7"}, "'7' leaves none of 2 GPUs"),
        ({"FAKE_GPUS": "1", "FAKE_MIG": "0"}, "MIG enabled and none has a slice"),
        ({"FAKE_INIT": "18"}, "differ in version"),
        ({"FAKE_INIT": "4"}, "/dev/nvidia"),
        ({"FAKE_INIT": "999"}, "the NVIDIA driver says: "),
    ],
)
def test_a_gpu_that_should_be_there_and_is_not_is_refused(
    driver: Path, told: dict[str, str], why: str
) -> None:
    for spec in ("auto", "cuda", "auto,sim:1", "cuda:GPU-00000000-0000"):
        answer = ask(spec, driver, **told)
        assert isinstance(answer, str), answer
        assert why in answer
    assert "or ask for --devices cpu" in ask("auto", driver, **told)
    assert ids(ask("cpu", driver, **told)) == ["cpu"]


async def test_a_supervisor_that_finds_a_broken_gpu_ends_and_tells_the_control_planes(
    driver: Path,
) -> None:
    told, server = ControlPlane(), GrpcServer([])
    membership_pb2_grpc.add_MembershipServiceServicer_to_server(told, server.server)
    port = await server.start("127.0.0.1", 0)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "--id=w1", f"--control-planes=127.0.0.1:{port}"),
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_INIT": "999"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, output = await asyncio.wait_for(process.communicate(), 60)
    await server.stop(0)
    assert process.returncode == DEVICES_LOST
    assert b"--devices cpu to serve without it" in output
    (report,) = told.exits
    assert (report.worker, report.device, report.device_kind) == ("w1", "auto", "cuda")
    assert "no device: " in report.exit.ended
    assert "the NVIDIA driver says: " in report.exit.ended
    assert not report.requests


def test_hardware_without_its_driver_is_told_from_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(name: str, vendor: str = "", kind: str = "", node: bool = False) -> Host:
        for folder in ("pci/0000:00:1f.0", "dev"):
            (tmp_path / name / folder).mkdir(parents=True)
        (tmp_path / name / "pci/0000:00:1f.0/vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "pci/0000:00:1f.0/class").write_text(f"{kind}\n")
        if node:
            (tmp_path / name / "dev/nvidiactl").touch()
        return Host(pci=tmp_path / name / "pci", dev=tmp_path / name / "dev")

    def fails(error: type[pynvml.NVMLError]) -> Any:
        def init() -> None:
            raise error

        return init

    monkeypatch.setattr(pynvml, "nvmlInit", fails(pynvml.NVMLError_DriverNotLoaded))
    assert discover("auto", {}, host=machine("none"))[0].id == "cpu"
    assert discover("auto", {}, host=machine("its sound card", "0x10de", "0x040300"))[0].id == "cpu"
    with pytest.raises(BrokenGpu, match=r"module is not loaded.*--devices cpu"):
        discover("auto", {}, host=machine("a card", "0x10de", "0x030200"))
    monkeypatch.setattr(pynvml, "nvmlInit", fails(pynvml.NVMLError_LibraryNotFound))
    assert discover("auto", {}, host=machine("nouveau", "0x10de", "0x030000"))[0].id == "cpu"
    with pytest.raises(BrokenGpu, match="though /dev/nvidiactl is here"):
        discover("auto", {}, host=machine("half a container", node=True))


def has_driver() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_says_that_the_driver_is_missing() -> None:
    assert "libnvidia-ml.so.1 is missing" in ask("cuda", None)
    assert "libnvidia-ml.so.1 is missing" in ask("cuda:GPU-1", None)
    assert ids(ask("auto", None)) == ["cpu"]


def test_leaves_out_a_gpu_that_is_lost(driver: Path) -> None:
    assert ids(ask("cuda", driver, FAKE_GPUS="3", FAKE_LOST="1")) == [gpu(0), gpu(2)]


@pytest.mark.parametrize("told", ["1", "2"])
def test_a_chip_that_shares_memory_has_the_hosts(driver: Path, told: str) -> None:
    answer = ask("cuda", driver, FAKE_GPUS="1", FAKE_SHARED=told)
    assert answer[0][3] == Host().memory_bytes()


# --- how a device is while it works -------------------------------------------------------------

STAND = """
import json, sys
from dataclasses import asdict
from worker.hardware.device_stand import DeviceObserver

clock = iter([100.0, 102.0, 104.0]).__next__
observer = DeviceObserver(sys.argv[1], iter([0.5, 1.5]).__next__, clock)
looks = [asdict(observer.look(1, 2)), asdict(observer.look(3, 4))]
print(json.dumps(looks))
"""
THERMAL, POWER, IDLE = 0x40, 0x4, 0x1


def stands(device: str, driver: Path | None, **told: str) -> Any:
    """Two looks at a device in a fresh process, two seconds apart, with 0.5 and 1.0 s of passes."""
    environ = {**os.environ, **told}
    if driver is not None:
        environ["LD_LIBRARY_PATH"] = str(driver)
    command = [sys.executable, "-c", STAND, device]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_gpu_tells_how_busy_warm_and_quick_it_is(driver: Path) -> None:
    told = {"FAKE_GPUS": "1", "FAKE_CLOCK": "1500", "FAKE_WHY": str(THERMAL | POWER | IDLE)}
    first, _ = stands(gpu(0), driver, **told)
    assert (first["used_bytes"], first["free_bytes"], first["utilisation"]) == (1, 2, 0.75)
    assert first["gpu"] == {
        "utilisation": 0.75,
        "temperature_c": 71,
        "clock_ratio": 0.75,
        "power_w": 312.5,
        "power_limit_w": 700.0,
        "energy_j": 5.5,
        "memory_total_bytes": 80 * GIB,
        "throttled": ["power", "thermal"],
    }


@pytest.mark.parametrize("device", [mig(0, 1), gpu(3), "cpu", "sim:0"])
def test_what_a_device_does_not_say_is_not_known(driver: Path, device: str) -> None:
    """A slice, a GPU that is gone, no GPU: then its use is the part in which passes ran."""
    first, second = stands(device, driver, FAKE_GPUS="1", FAKE_MIG="0", FAKE_SLICES="3")
    assert (first["utilisation"], second["utilisation"]) == (0.25, 0.5)
    told = {name: value for name, value in first["gpu"].items() if value not in (None, [])}
    assert told == ({"memory_total_bytes": 10 * GIB} if device.startswith("cuda:MIG") else {})
    assert first["xids"] is None


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (gpu(0), [(2, 31), (4, 94)]),
        # Of another slice it hears nothing; what is of no slice is everyone's.
        (mig(0, 1), [(1, 79), (3, 94)]),
        (mig(0, 4), [(0, 0), (1, 94)]),
    ],
)
def test_errors_that_the_driver_reports_are_counted(
    driver: Path, device: str, told: list[tuple[int, int]]
) -> None:
    xids = f"79:2 31:3 45:{2 if device == mig(0, 1) else 3} 94:{0xFFFFFFFF}"
    looks = stands(device, driver, FAKE_GPUS="1", FAKE_MIG="0", FAKE_SLICES="22", FAKE_XIDS=xids)
    assert [(look["xids"]["total"], look["xids"]["last"]) for look in looks] == told


# --- CPU and simulated devices, and the words for them ----------------------------------------


def test_cpu_device() -> None:
    (device,) = discover("cpu", {})
    assert (device.kind, device.id) == ("cpu", "cpu")
    assert device.memory_bytes == Host().memory_bytes()
    assert device.environment == {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(Host().compute_threads()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        **allocator.environment({}),
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "2048",
    }
    (device,) = discover("cpu", {}, compute_threads=5)
    assert device.environment["OMP_NUM_THREADS"] == "5"


def test_the_kernels_of_many_passes_are_kept_on_a_cpu() -> None:
    """More than oneDNN keeps by itself; each of these is a convolution and two reorders."""
    code = """
import torch
weight, rest = torch.zeros(1, 1, 1, 1), (None, (0, 0), (1, 1), (1, 1), 1)
for turn in range(2):
    print("turn", flush=True)
    for width in range(1, 501):
        torch.mkldnn_convolution(torch.zeros(1, 1, 1, width), weight, *rest)
"""
    (device,) = discover("cpu", {})
    environment = {**os.environ, **device.environment, "ONEDNN_VERBOSE": "profile_create"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    _, first, second = done.stdout.split("turn\n")
    assert first.count("create:cache_miss") >= 1500
    assert second.count("create:cache_hit") >= 1500
    assert "create:cache_miss" not in second


def test_cpu_workers_with_cores_of_their_own() -> None:
    cores = Host().allowed()
    each = len(cores) // 2 or 1
    found = discover(f"cpu:{len(cores) // each}x{each}", {})
    assert found[0].kind == "cpu"
    assert [cpu_sets.parse(one.id.removeprefix("cpu:")) for one in found] == [
        cores[n * each : (n + 1) * each] for n in range(len(cores) // each)
    ]
    assert sum(one.memory_bytes for one in found) <= Host().memory_bytes()
    assert found[0].environment["OMP_NUM_THREADS"] == str(Host().compute_threads(each))
    assert find(found[0].id, {}) == found[0]
    with pytest.raises(InvalidOption, match="not there"):
        discover("cpu:99998-99999", {})


def test_a_bound_process_has_its_cores_and_its_share_of_memory() -> None:
    code = (
        "import threading, os; from worker.hardware.host import Host; whole = Host(); "
        "cores = whole.allowed(); host = whole.bind(cores[-1:]); "
        "assert host.allowed() == cores[-1:] and host.cores() == host.compute_threads() == 1; "
        "assert host.memory_bytes() == whole.memory_bytes() // len(cores); "
        "seen = []; thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))"
        "; thread.start(); thread.join(); assert seen == [{cores[-1]}]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_threads_of_a_cpu_worker_wait_for_their_turn() -> None:
    def threads(pid: int) -> list[int]:
        return [int(folder.name) for folder in Path(f"/proc/{pid}/task").iterdir()]

    async def policies(device: str) -> set[int]:
        async with Worker(device) as worker:
            return {os.sched_getscheduler(thread) for thread in threads(worker.pid)}

    assert os.SCHED_BATCH in await policies("cpu")
    assert os.SCHED_BATCH not in await policies("sim:1")


def test_simulated_devices() -> None:
    assert [device.id for device in discover("sim:3", {})] == ["sim:0", "sim:1", "sim:2"]
    assert find("sim:3", {}).id == "sim:3"
    assert find("cpu", {}).id == "cpu"


@pytest.mark.parametrize("spec", ["", "gpu", "cuda:0", "sim:", "sim:x", "sim:257", "cpu,", "cuda:"])
def test_refuses_words_that_mean_no_device(spec: str) -> None:
    with pytest.raises(InvalidOption, match="give "):
        discover(spec, {})


def test_one_device_must_be_one() -> None:
    with pytest.raises(InvalidOption, match="2 devices"):
        find("cpu,sim:1", {})


# --- The host's limits ------------------------------------------------------------------------


def host(root: Path, membership: str, files: dict[str, str]) -> Host:
    """A host whose kernel says this."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root / "proc", root / "cgroup")


CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "900000 100000\n"}, min(CORES, 9)),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"}, CORES),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "15", "cpu/cpu.cfs_period_us": "10"}, 1),
        ("4:cpuset:/\n0::/\n", {}, CORES),
        ("", {}, CORES),
    ],
)
def test_cores_within_affinity_and_quota(
    tmp_path: Path, membership: str, files: dict[str, str], cores: int
) -> None:
    assert host(tmp_path, membership, files).cores() == cores


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/pod\n", {"memory.max": "max", "pod/memory.max": "1048576\n"}),
        ("7:memory:/pod\n", {"memory/pod/memory.limit_in_bytes": "1048576\n"}),
        ("7:memory:/of/the/host\n", {"memory/memory.limit_in_bytes": "1048576\n"}),
    ],
)
def test_memory_within_the_limit(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    assert host(tmp_path, membership, files).memory_bytes() == 1048576


def test_memory_without_a_limit_is_the_machines(tmp_path: Path) -> None:
    v1_unlimited = {"memory/memory.limit_in_bytes": "9223372036854771712"}
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host(tmp_path, "7:memory:/\n", v1_unlimited).memory_bytes() == machine


def test_cpu_name(tmp_path: Path) -> None:
    made = host(tmp_path, "", {})
    assert made.cpu_name() == os.uname().machine
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One\n")
    assert made.cpu_name() == "Fast One"


def test_resident_memory_is_that_without_mapped_files(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Name:\tpython\nVmRSS:\t 90 kB\nRssAnon:\t 40 kB\nRssFile:\t 30 kB\nRssShmem:\t 20 kB\n"
    )
    assert resident_bytes(status) == 60 * 1024
    status.write_text("Name:\tpython\nVmRSS:\t 90 kB\nVmData:\t 40 kB\n")
    assert resident_bytes(status) == 90 * 1024, "not none"
    assert 10**6 < resident_bytes() < Host().memory_bytes()
