"""What a worker measured of its device and its passes, as messages."""

from worker.engine.request import PassCounts
from worker.hardware.device_stand import DeviceStand
from worker.replicas.usage import Evictions
from yolopool.v1 import fleet_pb2, types_pb2


def figures_to(
    stand: DeviceStand | None, passed: PassCounts, from_device: Evictions, from_host: Evictions
) -> fleet_pb2.WorkerFigures:
    return fleet_pb2.WorkerFigures(
        device=None if stand is None else _stand_to(stand),
        busy_s=passed.busy_s,
        estimated_s=passed.estimated_s,
        estimated_took_s=passed.estimated_took_s,
        estimated_off_s=passed.estimated_off_s,
        from_device=_evictions_to(from_device),
        from_host=_evictions_to(from_host),
    )


def _evictions_to(evictions: Evictions) -> fleet_pb2.Evictions:
    return fleet_pb2.Evictions(total=evictions.total, unused_s=evictions.unused_s)


def _stand_to(stand: DeviceStand) -> types_pb2.DeviceStand:
    gpu = stand.gpu
    return types_pb2.DeviceStand(
        used_bytes=stand.used_bytes,
        free_bytes=stand.free_bytes,
        utilisation=stand.utilisation,
        temperature_c=gpu.temperature_c,
        clock_ratio=gpu.clock_ratio,
        power_w=gpu.power_w,
        throttled=gpu.throttled,
        host_load=stand.host_load,
        power_limit_w=gpu.power_limit_w,
        energy_j=gpu.energy_j,
        memory_total_bytes=gpu.memory_total_bytes,
        xid_errors=stand.xids.total if stand.xids is not None else None,
        last_xid=stand.xids.last if stand.xids is not None else 0,
    )
