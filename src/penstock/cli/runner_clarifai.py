"""`penstock runner --clarifai`: what only a runner for a server of Clarifai's has to be told."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from penstock.cli.exits import Exit, fail

if TYPE_CHECKING:
    from penstock.runner.clarifai.runner import ClarifaiRunner
    from penstock.runtime.app import App

_NEEDED = ("grpc", "clarifai_grpc")

Clarifai = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Dial a server of Clarifai's runners, such as https://api.clarifai.com (CLARIFAI_API_BASE).",
    ),
]
UserId = Annotated[
    str | None,
    typer.Option(envvar="CLARIFAI_USER_ID", help="Whose runner it is."),
]
ComputeClusterId = Annotated[
    str | None,
    typer.Option(envvar="CLARIFAI_COMPUTE_CLUSTER_ID", help="Where it runs."),
]
NodepoolId = Annotated[
    str | None,
    typer.Option(envvar="CLARIFAI_NODEPOOL_ID", help="Where in there."),
]
RunnerId = Annotated[
    str | None,
    typer.Option(envvar="CLARIFAI_RUNNER_ID", help="Which runner it is."),
]
Pat = Annotated[
    str | None,
    typer.Option(envvar="CLARIFAI_PAT", help="Its access token; better in the environment."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Items at once, each on a stream (what config.yaml or CLARIFAI_NUM_THREADS says, or what the "
        "commands run, at most 16)."
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        envvar=["PENSTOCK_CA", "CLARIFAI_ROOT_CERTIFICATES_PATH"],
        exists=True,
        dir_okay=False,
        help="Certificates, PEM, that are trusted instead of the machine's.",
    ),
]
Keepalive = Annotated[
    float | None,
    typer.Option(
        help="Seconds between looks at a silent connection (310); less only where the server permits it."
    ),
]


PrivateMedia = Annotated[
    bool,
    typer.Option(
        "--private-media",
        help="With --clarifai: annotate media at addresses of this machine and of private networks, too.",
    ),
]
Health = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="With --clarifai: answer probes over HTTP there, at /healthz/liveness, readiness and startup.",
    ),
]


class Given(NamedTuple):
    """What the flags and the environment say."""

    url: str
    user_id: str | None
    compute_cluster_id: str | None
    nodepool_id: str | None
    runner_id: str | None
    pat: str | None
    threads: int | None
    ca: Path | None
    keepalive_s: float | None
    private_media: bool
    health: str | None


def server_url(flag: str | None, gateways: list[str]) -> str | None:
    """Return the server to dial; None where gateways are.

    Raises:
        typer.Exit: Both are named.
    """
    if flag is not None and gateways:
        fail("a runner dials gateways, or a server of Clarifai's: start two for both", Exit.USAGE)
    return None if gateways else flag or os.environ.get("CLARIFAI_API_BASE") or None


def refuse_without_packages() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        typer.Exit: They are not there.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        fail(f"--clarifai needs {' and '.join(missing)}; install with: pip install 'penstock[clarifai]'")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it tells of every connection that ends


def clarifai_runner(app: App, project: Path | None, given: Given) -> ClarifaiRunner:
    """Return the runner of a project.

    Raises:
        typer.Exit: The flags do not fit.
        AuthoringError: config.yaml has mistakes.
    """
    from penstock.annotate.clarifai.annotator import TaskAnnotator
    from penstock.runner.clarifai.address import KEEPALIVE_S, read_address
    from penstock.runner.clarifai.identity import Credentials, Identity
    from penstock.runner.clarifai.probes import read_where
    from penstock.runner.clarifai.runner import ClarifaiRunner

    session = None if given.pat else os.environ.get("CLARIFAI_SESSION_TOKEN") or None
    threads = _threads(project) if given.threads is None else given.threads
    try:
        ca = None if given.ca is None else given.ca.read_bytes()
        keepalive_s = KEEPALIVE_S if given.keepalive_s is None else given.keepalive_s
        address = read_address(given.url, given.pat or session, ca=ca, keepalive_s=keepalive_s)
        identity = Identity(
            given.user_id or "",
            given.compute_cluster_id or "",
            given.nodepool_id or "",
            given.runner_id or "",
        )
        return ClarifaiRunner(
            app,
            address,
            identity,
            Credentials(given.pat or None, session),
            threads=threads,
            annotator=TaskAnnotator(private=given.private_media),
            health=None if given.health is None else read_where(given.health),
        )
    except (OSError, ValueError) as error:
        fail(str(error), Exit.USAGE)


def _threads(project: Path | None) -> int | None:
    from penstock.integrations.model_folder.folder import CONFIG, is_model_folder, num_threads
    from penstock.runtime.manifest_lines import read_document

    if project is not None and is_model_folder(project):
        return num_threads(read_document(project / CONFIG))
    text = os.environ.get("CLARIFAI_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() else None
