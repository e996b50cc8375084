"""Why an import failed: a stable reason code, and a message that says what to do."""

UNSAFE = "ARTIFACT_UNSAFE"  # the pickle names code outside the allow-list
INVALID = "ARTIFACT_INVALID"  # not a checkpoint, or a damaged one
UNSUPPORTED = "ARTIFACT_UNSUPPORTED"  # a kind of model that is not served
CHANGED = "DIGEST_MISMATCH"  # not the bytes that were registered
CALIBRATION = "CALIBRATION_INVALID"  # int8 without calibration images, or unusable ones
NOT_FOUND = "ARTIFACT_NOT_FOUND"
TOO_LARGE = "ARTIFACT_TOO_LARGE"
TIMEOUT = "IMPORT_TIMEOUT"
OUT_OF_MEMORY = "IMPORT_OUT_OF_MEMORY"
CRASHED = "IMPORT_CRASHED"
WEAK_SANDBOX = "SANDBOX_WEAKER"  # a sandbox layer is missing and all are required


class ImportRefused(Exception):
    """The import failed; there is no pack."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
