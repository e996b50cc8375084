"""Which versions may be used where signatures are required: those whose artifact a signer who is
still trusted signed, however they came into the registry.
"""

from collections.abc import Callable
from dataclasses import replace

from control_plane.types.version import ModelVersion, VersionState
from yolopool.errors import SignatureRequired
from yolopool.signing.signers import SIGN, Signers

Admit = Callable[[ModelVersion], ModelVersion]


def as_it_is(version: ModelVersion) -> ModelVersion:
    return version


def admission(signers: Signers) -> Admit:
    """What a version is shown as, here alone: FAILED if it is not signed and has to be. Its record
    stays as it is.
    """
    if not signers.required:
        return as_it_is

    def admit(version: ModelVersion) -> ModelVersion:
        given = version.given
        if version.state is VersionState.FAILED or version.is_fetching:
            return version  # there is no file yet to be signed: it is looked at when it comes
        if signers.still_trust(given.signature, given.signer):
            return version
        whose = f"by {given.signer}, who is not trusted" if given.signer else "by nobody"
        why = f"it was signed {whose}, and only signed models are served here: {SIGN}"
        return replace(
            version, state=VersionState.FAILED, reason=SignatureRequired.reason, message=why
        )

    return admit
