"""The message that tells control planes that a process of a worker ended by itself."""

from collections.abc import Sequence

from worker.process.restart_policy import Restart
from yolopool.v1 import fleet_pb2, membership_pb2


def exit_report(
    *,
    worker: str,
    device: str,
    device_kind: str,
    incarnation: str,
    ended: str,
    ran_s: float,
    restart: Restart,
    requests: Sequence[str],
    last_output: str = "",
    io_process: str = "",
) -> membership_pb2.ReportExitRequest:
    """`requests` are the ids that were in flight; `io_process` names the I/O process that ended,
    and is empty for the worker process itself.
    """
    return membership_pb2.ReportExitRequest(
        worker=worker,
        device=device,
        device_kind=device_kind,
        incarnation=incarnation,
        io_process=io_process,
        exit=fleet_pb2.WorkerExit(
            ended=ended,
            last_output=last_output,
            in_a_row=restart.attempt,
            ran_s=ran_s,
            restart_in_s=restart.delay_s,
        ),
        requests=requests,
    )
