"""Pages in a browser, watched."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple


class Visit(NamedTuple):
    """A page that is open.

    Attributes:
        page: Playwright's.
        complaints: Texts of the console's warnings and errors, and of what failed.
        requests: The URLs asked for, but for data in the page itself.
    """

    page: Any
    complaints: list[str]
    requests: list[str]

    def is_as_wide_as_the_window(self) -> bool:
        return self.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )

    def broken_pictures(self) -> int:
        return self.page.evaluate(
            "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
        )


@contextlib.contextmanager
def visit(browser: Any, url: str, width: int = 1200) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(10_000)
    found = Visit(page, [], [])
    page.on(
        "console",
        lambda message: (
            found.complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.on(
        "response",
        lambda response: (
            found.complaints.append(f"{response.url}: {response.status}")
            if response.status >= 400
            else None
        ),
    )
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on(
        "requestfailed",
        lambda request: (
            # What a page gives up itself, as the streams of its server, is no failure.
            None
            if request.failure == "net::ERR_ABORTED"
            else found.complaints.append(f"{request.url}: {request.failure}")
        ),
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("data:", "blob:"))
            else found.requests.append(request.url)
        ),
    )
    page.goto(url)
    yield found
    context.close()
