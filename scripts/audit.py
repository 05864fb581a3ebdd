"""Asks pip-audit about what each extra of this package has installed, and reports.

    python scripts/audit.py PIP_AUDIT

PIP_AUDIT is the program. The exit code is 0 whatever is found, and without a network.
"""

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["installed", "report"]

PACKAGE = "asl-fast"


def installed(
    name: str, extras: tuple[str, ...] = ("",), seen: dict[str, str] | None = None
) -> dict:
    """Returns the versions of a package's installed requirements, and of theirs, by name."""
    seen = {} if seen is None else seen
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        )
        part = canonicalize_name(requirement.name)
        if not wanted or part in seen:
            continue
        try:
            seen[part] = metadata.version(part)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        installed(part, ("", *requirement.extras), seen)
    return seen


def report(program: str) -> None:
    """Prints what is known about each extra's packages."""
    common = installed(PACKAGE)
    for extra in ("", *sorted(metadata.metadata(PACKAGE).get_all("Provides-Extra") or ())):
        packages = installed(PACKAGE, (extra,)) if extra else common
        own = {name: packages[name] for name in packages if not extra or name not in common}
        print(f"\n{PACKAGE}{f'[{extra}]' if extra else ''}: {len(own)} packages", flush=True)
        if not own:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "requirements.txt"
            path.write_text("".join(f"{name}=={version}\n" for name, version in own.items()))
            command = [program, "--disable-pip", "--no-deps", "--progress-spinner", "off"]
            try:
                ended = subprocess.run(
                    [*command, "--timeout", "10", "--requirement", path],
                    capture_output=True,
                    text=True,
                )
                lines = [*ended.stdout.splitlines(), *ended.stderr.splitlines()[-1:]]
                unknown = [line for line in lines if "could not be audited" in line]
                print("\n".join(line for line in lines if line not in unknown))
                if unknown:
                    print(f"Not looked up, as the index does not know them: {len(unknown)}")
            except OSError as error:
                print(f"Not looked up: {error}")


if __name__ == "__main__":
    report(sys.argv[1])
