"""Names that the shell completes: models and workers of the pool, as it has them now.

Whoever presses Tab waits: a pool that does not answer soon has no names, and nothing is said.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from yolopool import transport

if TYPE_CHECKING:
    from yolopool.client.client import Client

_LIMIT_S = 0.5


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Models whose name begins so; once an @ is typed, the versions of that model, once a colon is,
    its aliases.
    """
    name, at, _ = incomplete.partition("@")

    def asked(client: "Client") -> Iterable[str]:
        if ":" in name:
            yield from (alias.name for alias in client.aliases(name.partition(":")[0]))
            return
        for model in client.models(name, timeout_s=_LIMIT_S):
            yield from (version.name for version in model.versions) if at else (model.name,)

    return _begins(incomplete, ctx, asked)


def workers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Workers whose id begins so."""
    return _begins(
        incomplete, ctx, lambda client: [one.id for one in client.workers(timeout_s=_LIMIT_S)]
    )


def _begins(
    incomplete: str, ctx: typer.Context, ask: Callable[["Client"], Iterable[str]]
) -> list[str]:
    # Every command has these names among its options, and few are completed.
    from yolopool.client.client import Client

    given = ctx.params.get("address")
    address = None if given in (None, transport.DEFAULT_ADDRESS) else str(given)
    try:
        with Client(address) as client:
            return [name for name in ask(client) if name.startswith(incomplete)]
    except Exception:  # whatever it is, the line that is being typed is no place for it
        return []
