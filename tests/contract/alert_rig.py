"""Alerts in a hurry: the table with its times divided, and a receiver on a real socket."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from control_plane.alerts.expressions import Increase
from control_plane.alerts.rule import AlertRule
from control_plane.alerts.table import RULES
from control_plane.store.registry import Registry
from tests.contract.control_plane_rig import Rig
from tests.waiting import answered
from yolopool.v1 import alerts_pb2

# Five minutes are a second.
FASTER = 300.0
EVERY_S = 0.1


def hurried(part: Any, by: float = FASTER) -> Any:
    """An expression with its windows divided."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changes = {one.name: hurried(getattr(part, one.name), by) for one in fields(part)}
    if isinstance(part, Increase):
        changes["window_s"] = part.window_s / by
    return replace(part, **changes)


def fast(rules: Sequence[AlertRule] = RULES, by: float = FASTER) -> tuple[AlertRule, ...]:
    """Rules that look back and wait a part of the time."""
    return tuple(
        replace(
            rule,
            look=hurried(rule.look, by),
            for_s=rule.for_s / by,
            least=(hurried(rule.least[0], by), rule.least[1]) if rule.least else None,
        )
        for rule in rules
    )


def alert_rig(folder: Path, registry: Registry | None = None, **more: Any) -> Rig:
    """A control plane that looks at the hurried rules ten times a second."""
    more.setdefault("webhook_private_networks", ("127.0.0.0/8",))
    return Rig(folder, registry, rules=fast(), alerts_every_s=EVERY_S, **more)


async def alerts(rig: Rig, stage: str = "") -> list[Any]:
    request = alerts_pb2.ListAlertsRequest(stage=stage)
    return list((await rig.alerts.ListAlerts(request, timeout=5)).alerts)


async def fires(rig: Rig, rule: str, limit_s: float = 20.0) -> Any:
    """The alert of a rule, once it fires."""
    found = await answered(
        lambda: alerts(rig, "firing"), lambda seen: any(one.rule == rule for one in seen), limit_s
    )
    return next(one for one in found if one.rule == rule)


async def ends(rig: Rig, rule: str, limit_s: float = 20.0) -> None:
    """Waits until no alert of a rule fires."""
    await answered(
        lambda: alerts(rig, "firing"), lambda seen: all(one.rule != rule for one in seen), limit_s
    )


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent. It answers with the `statuses`, then with 200."""

    statuses: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refused: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __enter__(self) -> "Receiver":
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                (receiver.taken if status < 300 else receiver.refused).append((headers, body))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook?room=7"

    def told(self) -> list[tuple[str, str]]:
        """Type and rule of each message that was taken."""
        messages = [json.loads(body) for _, body in self.taken]
        return [(one["type"], one["data"].get("rule", "")) for one in messages]
