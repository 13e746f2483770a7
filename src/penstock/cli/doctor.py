"""`penstock doctor`: is this machine, and this project, fit to serve?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from penstock.cli.exits import Exit

Project = Annotated[Path | None, typer.Argument(exists=True, help="A project to look at, too.")]

FASTER = {"uvloop": "a faster event loop", "httptools": "a faster HTTP parser"}


class Finding(NamedTuple):
    """One thing that was looked at."""

    good: bool
    what: str
    advice: str = ""


def doctor(project: Project = None) -> None:
    """Check the machine and, if one is named, a project; exits 1 if anything is wrong."""
    findings = [*_machine(), *(_project(project) if project else ())]
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'BAD '} {finding.what}")
        if not finding.good:
            print(f"     {finding.advice}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 10), f"Python {version}", "penstock needs Python 3.10 or later")
    for package, gain in FASTER.items():
        yield Finding(_version(package) is not None, f"{package} ({gain})", f"pip install {package}")
    yield _port(8000, "--port")
    yield _port(8765, "--ws-port")
    yield _default_model()


def _port(port: int, flag: str) -> Finding:
    from penstock.errors import PenstockError
    from penstock.server.host import listen

    try:
        listen("127.0.0.1", port, flag).close()
    except PenstockError as error:
        return Finding(False, f"port {port} is free", str(error))
    return Finding(True, f"port {port} is free")


def _default_model() -> Finding:
    from penstock.engines.store import ModelStore
    from penstock.errors import PenstockError

    try:
        path = ModelStore().resolve("smollm2-135m")
    except PenstockError as error:
        return Finding(False, "the embedded model is here", str(error))
    return Finding(True, f"the embedded model is here: {path}")


def _project(project: Path) -> Iterator[Finding]:
    from penstock.compose import describe_project, find_project

    yield _checked(f"{project}: its manifest", lambda: find_project(project), project)
    yield _checked(f"{project}: it can be imported", lambda: describe_project(project), project)
    yield from _requirements(project)


def _checked(what: str, check: Callable[[], object], project: Path) -> Finding:
    from penstock.cli.failure import describe_failure

    try:
        check()
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        return Finding(False, what, describe_failure(error, project))
    return Finding(True, what)


def _requirements(project: Path) -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement

    from penstock.compose import find_project
    from penstock.errors import PenstockError

    try:
        manifest, _ = find_project(project)
    except PenstockError:
        return  # told above
    for line in manifest.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            yield Finding(False, f"requires {line}", f"not a requirement: {error}")
            continue
        found = _version(requirement.name)
        good = found is not None and requirement.specifier.contains(found, prereleases=True)
        yield Finding(good, f"requires {line} (found: {found or 'none'})", f"pip install '{line}'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
