"""When a prepared parent is replaced by a new one. Pure."""

# Children of one parent have its layout in memory, which a child that was broken into could tell:
# it is worth nothing after so many imports.
MAX_FORKS = 100


def why_replaced(forks: int, *, has_ended: bool, has_crashed: bool, has_other_files: bool) -> str:
    """What speaks against another child of it, in words; empty: nothing."""
    if has_ended:
        return "it has ended"
    if has_crashed:
        # Or a file that crashes could try again and again where things lie in memory.
        return "a child crashed"
    if has_other_files:
        return "files of its libraries have changed"
    return f"{forks} imports were its children" if forks >= MAX_FORKS else ""
