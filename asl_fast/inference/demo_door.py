"""The demo's door: which requests are let in, and what they may leave behind."""

import ipaddress
import logging
import shutil
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from asl_fast.system.errors import printable

__all__ = ["Door", "hold_tracebacks"]

_KEPT = 200  # pictures, uploaded or made; the oldest go first
_FORM = 1 << 20  # bytes of a request besides the picture that it holds

_log = logging.getLogger(__name__)


class Door:
    """ASGI middleware that refuses requests of other sites' pages, and large ones.

    A page elsewhere whose name an attacker lets lead here (DNS rebinding) sends its own name as
    Host. So Host must be an address, "localhost" or this machine's name, and Origin the same.

    Args:
        app: The application behind the door.
        host: Where it listens.
        folder: Of the pictures, of which a number is kept.
        largest: Bytes of an upload.
    """

    def __init__(self, app: Any, host: str, folder: str, largest: int) -> None:
        self._app, self._folder, self._largest = app, Path(folder), largest + _FORM
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, or answers it."""
        problem = None
        if scope["type"] in ("http", "websocket"):
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            problem = self._problem(headers, scope.get("method", "GET"))
        if problem is None:
            if scope.get("method") == "POST":
                self._clear()
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            start = {"type": "http.response.start", "status": problem[0], "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": problem[1].encode()})

    def _problem(self, headers: dict[bytes, str], method: str) -> tuple[int, str] | None:
        """Returns status and text of a refusal, or None."""
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self._is_own(host):
            return 403, "Open the demo by its address, localhost, or the machine's name."
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "Pages of other sites can't use the demo."
        length = headers.get(b"content-length", "")
        if method in ("POST", "PUT", "PATCH") and not length.isdecimal():
            return 411, "The request does not tell its length."
        if length.isdecimal() and int(length[:20]) > self._largest:
            return 413, f"Pictures may have up to {(self._largest - _FORM) >> 20} MiB."
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _clear(self) -> None:
        places = [(path.stat().st_mtime, path) for path in self._folder.iterdir()]
        for _, path in sorted(places)[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def hold_tracebacks(modules: Iterable[ModuleType]) -> None:
    """Makes Gradio log a line, not a traceback, for a call that its own page can't have sent.

    Args:
        modules: Those of Gradio that print tracebacks.
    """

    def note(*_: Any, **__: Any) -> None:
        error = sys.exc_info()[1]
        text = " ".join(str(error).split())[:200]
        _log.warning("A call failed: %s: %s", type(error).__name__, printable(text))

    def in_a_line(record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True

    for module in modules:
        module.traceback = SimpleNamespace(print_exc=note)  # type: ignore[attr-defined]
    logging.getLogger("uvicorn.error").addFilter(in_a_line)
