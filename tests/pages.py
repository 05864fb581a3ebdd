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
    page.set_default_timeout(300_000)  # only what never ends fails
    found = Visit(page, [], [])
    complain = found.complaints.append

    def on_console(message: Any) -> None:
        # Answers of 400 and more are told below, with their URL.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load"):
            complain(message.text)

    def on_response(response: Any) -> None:
        if response.status >= 400:
            complain(f"{response.url}: {response.status}")

    def on_request(request: Any) -> None:
        if not request.url.startswith(("data:", "blob:")):
            found.requests.append(request.url)

    def on_failure(request: Any) -> None:
        # What a page gives up itself, as the streams of its server, is no failure.
        if request.failure != "net::ERR_ABORTED":
            complain(f"{request.url}: {request.failure}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complain(str(error)))
    page.on("response", on_response)
    page.on("request", on_request)
    page.on("requestfailed", on_failure)
    page.goto(url)
    yield found
    context.close()
