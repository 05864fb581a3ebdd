"""Sections of a report that go wrong, each in its own way."""

import os
import time

from benchmarks.gpu.figures import main


def whole(request):
    return {"one": lambda: {"ms": 1.5, "n": 3}, "two": lambda: {"ms": 2000.0, "n": 3}}


def crash(request):
    return {"first": lambda: {"ms": 7.0}, "second": lambda: os._exit(3), "third": dict}


def hang(request):
    return {"first": lambda: {"ms": 8.0}, "second": lambda: time.sleep(600), "third": dict}


def fail(request):
    return {"first": lambda: {}["nothing"], "second": lambda: {"ms": 9.0}}


if __name__ == "__main__":
    main({section.__name__: section for section in (whole, crash, hang, fail)})
