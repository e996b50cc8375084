"""What of yolopool is installed, and the error of a pool that did not start."""

import importlib.util

# Modules that an extra installs, to tell it from the bare client.
MODULES_OF_EXTRA = {
    "control-plane": ("redis", "starlette", "grpc_health"),
    "worker": ("torch", "ultralytics", "grpc_health"),
}


class StartFailed(Exception):
    """The pool did not start; the message has the last output of the process that failed."""


def check_extras(*extras: str) -> None:
    """Raises StartFailed if the modules of an extra are not installed."""
    wanted = [module for extra in extras for module in MODULES_OF_EXTRA[extra]]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise StartFailed(
            f"this installation lacks {', '.join(dict.fromkeys(missing))}: "
            f"pip install 'yolopool[{extras[0] if len(extras) == 1 else 'all'}]'"
        )
