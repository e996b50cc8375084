"""Errors that a client finds by itself."""

from yolopool.error_kinds import FailedPrecondition, InvalidArgument


class VideoNotReadable(InvalidArgument):
    reason = "VIDEO_NOT_READABLE"


class FleetFileInvalid(InvalidArgument):
    """A fleet file has faults; the message has a line for each."""

    reason = "FLEET_FILE_INVALID"


class ForkedProcess(FailedPrecondition):
    """This process was forked by one that used gRPC, which can't be used in it."""

    reason = "FORKED_PROCESS"


class ExtraMissing(FailedPrecondition):
    reason = "EXTRA_MISSING"
