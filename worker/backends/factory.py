"""Makes the backend that a worker's settings ask for."""

from worker.backends.base import Backend
from worker.hardware.host import Host
from worker.settings import Settings


def backend_of(settings: Settings, host: Host) -> Backend:
    """The backend for the device; imports torch only for real devices."""
    kind, _, name = settings.device.partition(":")
    if kind == "sim":
        from worker.backends.fault_injection import Faults
        from worker.backends.simulated import SimulatedBackend, TimeCurve

        faults = Faults(settings.sim_faults)
        curve = TimeCurve().slower(settings.sim_slowness)
        budget_bytes = settings.budget().resolve(0)
        look, answer = (faults.look, faults.answer) if settings.sim_faults else (None, None)
        return SimulatedBackend(
            int(name or 0), budget_bytes, curve, faults.step, look=look, answer=answer
        )
    from worker.backends.composite import CompositeBackend
    from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
    from worker.backends.onnx.openvino_backend import OpenVino
    from worker.backends.pytorch.backend import TorchBackend

    threads = settings.compute_threads or host.compute_threads()
    if kind == "cpu":
        return CompositeBackend(
            TorchBackend("cpu", threads), OnnxRuntime("cpu", threads), OpenVino(threads)
        )
    # The supervisor lets this process see only its own device, which is number 0 then.
    device = TorchBackend("cuda:0", graph_bytes=settings.graph_bytes())
    runtimes = [OnnxRuntime("cuda", used_bytes=device.in_use_bytes)]
    if settings.tensorrt:
        runtimes.append(OnnxRuntime("cuda", used_bytes=device.in_use_bytes, tensorrt=True))
    return CompositeBackend(device, *runtimes)
