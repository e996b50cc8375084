"""Why an import failed: a stable reason, and a message that says what to do."""

UNSAFE = "ARTIFACT_UNSAFE"  # it names code outside the allow-list
INVALID = "ARTIFACT_INVALID"  # no checkpoint, or a damaged one
UNSUPPORTED = "ARTIFACT_UNSUPPORTED"  # a checkpoint of a kind that is not served
CHANGED = "DIGEST_MISMATCH"  # not the bytes that were registered
CALIBRATION = "CALIBRATION_INVALID"  # int8 without images to calibrate it on, or no such images
NOT_FOUND = "ARTIFACT_NOT_FOUND"
TOO_LARGE = "ARTIFACT_TOO_LARGE"
TIMEOUT = "IMPORT_TIMEOUT"
OUT_OF_MEMORY = "IMPORT_OUT_OF_MEMORY"
CRASHED = "IMPORT_CRASHED"
WEAK_SANDBOX = "SANDBOX_WEAKER"  # a layer is missing and policy wants them all


class ImportRefused(Exception):
    """An import that ends without a pack."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
