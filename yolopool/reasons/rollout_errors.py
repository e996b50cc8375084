"""Errors of aliases and of what moves them: part of the tree of `errors`."""

from yolopool.error_kinds import FailedPrecondition, InvalidArgument, NotFound


class AliasChanged(FailedPrecondition):
    """The alias is not as the caller expected it: another changed it since."""

    reason = "ALIAS_CHANGED"


class NothingToRollBack(FailedPrecondition):
    """The alias has had no other target, or each is rolled back already."""

    reason = "NOTHING_TO_ROLL_BACK"


class SwitchAbandoned(FailedPrecondition):
    """The targets were not loaded in time, or another order came first: the alias did not move."""

    reason = "SWITCH_ABANDONED"


class RolloutNotPossible(FailedPrecondition):
    """The alias is on its way already, or means several versions, or the candidate itself."""

    reason = "ROLLOUT_NOT_POSSIBLE"


class RolloutNotFound(NotFound):
    """The alias has had no rollout."""

    reason = "ROLLOUT_NOT_FOUND"


class InvalidFamily(InvalidArgument):
    """The members do not fit each other, or do not say when each answers."""

    reason = "INVALID_FAMILY"
