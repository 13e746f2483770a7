"""Models named ``owner/repo/file.gguf`` or ``owner/repo``, as Hugging Face keeps them on this machine.

The folders are those of its own cache: ``models--OWNER--REPO/refs/main`` names a revision, and
``snapshots/REVISION/FILE`` is the file.  Reading them needs no package; downloading does.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from penstock.errors import CallError, ErrorCode


def is_spec(spec: str) -> bool:
    """Whether a spec looks like ``owner/repo/file.gguf``; the file may be in folders of the repository."""
    parts = spec.split("/")
    return len(parts) >= 3 and spec.endswith(".gguf") and not {"", ".", ".."} & set(parts)


def cached(spec: str) -> Path | None:
    """The file in the local cache, or ``None``: of the revision ``main`` names, else the newest."""
    if not is_spec(spec):
        return None
    owner, repo, file = spec.split("/", 2)
    return _in_snapshots(owner, repo, file)


def is_repo(spec: str) -> bool:
    """Whether a spec looks like ``owner/repo``."""
    parts = spec.split("/")
    return len(parts) == 2 and not {"", ".", "..", "~"} & set(parts)


def cached_folder(repo: str) -> Path | None:
    """The folder of ``owner/repo`` in the local cache, or ``None``; it holds a ``config.json``."""
    if not is_repo(repo):
        return None
    owner, name = repo.split("/")
    config = _in_snapshots(owner, name, "config.json")
    return config and config.parent


def _in_snapshots(owner: str, repo: str, file: str) -> Path | None:
    folder = _cache() / f"models--{owner}--{repo}"
    main = folder / "refs" / "main"
    revision = main.read_text().strip() if main.is_file() else ""
    named = folder / "snapshots" / revision / file
    if revision and named.is_file():
        return named
    found = [path / file for path in folder.glob("snapshots/*") if (path / file).is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def download(spec: str) -> Path:
    """Fetch the file into the local cache with ``huggingface_hub``.

    Raises:
        CallError: ``unavailable``: the package is not installed, or the download failed.
    """
    if find_spec("huggingface_hub") is None:
        raise CallError(
            f"{spec} is not in the local Hugging Face cache, and fetching it needs the package "
            "huggingface_hub; install it with: pip install huggingface_hub, or open a GGUF file by its path",
            ErrorCode.UNAVAILABLE,
        )
    hub = import_module("huggingface_hub")
    owner, repo, file = spec.split("/", 2)
    try:
        return Path(hub.hf_hub_download(f"{owner}/{repo}", file))
    except (OSError, ValueError) as error:
        raise CallError(f"{spec} could not be fetched: {error}", ErrorCode.UNAVAILABLE) from error


def _cache() -> Path:
    named = os.environ.get("HF_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME")
    base = Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface"
    return base / "hub"
