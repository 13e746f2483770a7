"""llama.cpp's server inside this process, with its doors shut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec

from penstock.engines.cores import usable_cores
from penstock.errors import CallError, ErrorCode

# A batch is the least that is computed between two looks at the cancel flag.  64 tokens take up to 0.3 s at
# 2,400 tokens of context on two cores, 128 take longer from 200 on, and neither is faster overall.
_BATCH_TOKENS = 64
# The longest path a Unix socket may have, less the name of ours and some room.
_LONGEST_FOLDER = 80
_GGUF_MAGIC = b"GGUF"

OnChunk = Callable[[Mapping[str, Any]], bool]


class LlamaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is run.

    Args:
        slots: Calls answered at the same time.
        context_tokens: What prompt and answer of one call may take together, in tokens; memory is taken for
            ``slots`` times that at once.
        kv_tokens: What those of all calls may take together; ``None`` is all that memory is taken for.
        threads: CPU threads; ``None`` is one per core, and one less while a single answer is generated.
        prompt_cache_mib: Memory for conversations that lost their slot to another one, in MiB; 0 keeps none.
        gpu_layers: Layers put on a GPU where the library was built with one; ``None`` is all that fit.
        verbose: Let llama.cpp write its log to standard error.
    """

    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    context_tokens: Annotated[int, msgspec.Meta(ge=128)] = 4096
    kv_tokens: Annotated[int, msgspec.Meta(ge=128, le=2**31)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    prompt_cache_mib: Annotated[int, msgspec.Meta(ge=0)] = 256
    gpu_layers: Annotated[int, msgspec.Meta(ge=0)] | None = None
    verbose: bool = False

    @classmethod
    def of(cls, options: Mapping[str, object]) -> LlamaSettings:
        """Check options by name; numbers may be texts.

        Raises:
            CallError: ``invalid_argument``, naming the option.
        """
        try:
            return msgspec.convert(dict(options), cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            raise CallError(f"llamacpp: {error}; options are {known}", ErrorCode.INVALID_ARGUMENT) from error


class LlamaServer:
    """One loaded model.  Its calls block, and may be made from several threads at once.

    The library insists on an HTTP listener: it is a Unix socket in a folder only this user can enter, with
    a random key.  We use it ourselves for the tokenizer, which the library offers in no other way.

    Raises:
        CallError: ``invalid_argument`` when the file is not a model llama.cpp can load, ``unavailable`` when
            the library is not installed.
    """

    def __init__(self, model: Path, settings: LlamaSettings) -> None:
        _refuse_non_gguf(model)
        self._folder = _private_folder()
        key = secrets.token_urlsafe(32)
        address = str(self._folder / "llama.sock")
        try:
            self._server: Any = _load(model, settings, address, key)
        except CallError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._http = _http(address, key)

    def complete(self, body: dict[str, Any], on_chunk: OnChunk) -> None:
        """Answer a chat (``messages``) or continue a text (``prompt``); blocks until it has ended.

        ``on_chunk`` returns true to stop; what it raises is lost in the library.

        Raises:
            ValueError, RuntimeError: The library could not read the request.
        """
        server = self._server
        answer = server.handle_chat_completions if "messages" in body else server.handle_completions
        answer(body, on_chunk)

    def tokens_of(self, text: str) -> list[int]:
        """The ids the model's tokenizer gives a text; empty where the socket cannot be used."""
        if self._http is None:
            return []
        with contextlib.suppress(httpx.HTTPError):
            answer = self._http.post("/tokenize", json={"content": text})
            if answer.is_success:
                return [int(token) for token in answer.json()["tokens"]]
        return []

    def prompt_ids(self, body: Mapping[str, Any]) -> list[int]:
        """The ids of the whole prompt of a request as ``complete`` takes it, its chat template applied; empty
        where the socket cannot be used, or the library does not say."""
        if self._http is None:
            return []
        with contextlib.suppress(httpx.HTTPError):
            text = body.get("prompt")
            if text is None:
                answer = self._http.post("/apply-template", json={"messages": body["messages"]})
                text = answer.json()["prompt"] if answer.is_success else ""
            asked = {"content": text, "add_special": True, "parse_special": True}
            answer = self._http.post("/tokenize", json=asked)
            if answer.is_success:
                return [int(token) for token in answer.json()["tokens"]]
        return []

    def close(self) -> None:
        """Free the model and remove the socket.  No call may be in flight."""
        if self._http is not None:
            self._http.close()
        # Its destructor stops the library's threads; there is no method for it.
        self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _load(model: Path, settings: LlamaSettings, address: str, key: str) -> Any:
    try:
        with _short_spins():
            library = import_module("xllamacpp")
    except ImportError as error:
        raise CallError(
            "the llamacpp engine needs the package xllamacpp; install it with: pip install xllamacpp",
            ErrorCode.UNAVAILABLE,
        ) from error
    try:
        return library.Server(_params(library, model, settings, address, key))
    except RuntimeError as error:
        raise CallError(
            f"llama.cpp could not load {model} ({error}); the file may be damaged or of a kind it does not "
            f"know, or memory too small for {settings.slots} slots of {settings.context_tokens} tokens; "
            "verbose=True shows its log",
            ErrorCode.INVALID_ARGUMENT,
        ) from error


def _params(library: Any, model: Path, settings: LlamaSettings, address: str, key: str) -> Any:
    params = library.CommonParams()
    params.model.path = str(model)
    params.n_parallel = settings.slots
    # The library splits its context among the slots.
    params.n_ctx = settings.context_tokens * settings.slots
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.cache_ram_mib = settings.prompt_cache_mib
    params.hostnames = [address]
    params.api_keys = [key]
    params.ui = params.endpoint_slots = False
    params.verbosity = 3 if settings.verbose else -1
    # What a model thinks is text like any other: v0.1 has one stream of text.
    params.reasoning_format = library.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    _set_threads(params, settings.threads)
    if settings.gpu_layers is not None:
        params.n_gpu_layers = settings.gpu_layers
    return params


@contextlib.contextmanager
def _short_spins() -> Iterator[None]:
    # OpenMP's threads spin for each other for milliseconds, which is lost time when something else needs a
    # core as well: in a trial on two cores beside a busy process, short spins took a prefill of 520 tokens
    # from 4.3 to 2.6 s.  It reads this once, when it is loaded.
    told = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if told:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _set_threads(params: Any, threads: int | None) -> None:
    cores = usable_cores()
    if threads is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    elif cores is not None:
        # Its threads spin until the last has done its share.  One token needs that hundreds of times, so a
        # core is left to whoever streams the tokens: on two cores this loses a tenth when nothing else
        # runs, and is ten times faster when something does.  A batch has more to share out.
        params.cpuparams.n_threads = max(1, cores - 1)
        params.cpuparams_batch.n_threads = cores


def _refuse_non_gguf(model: Path) -> None:
    try:
        with model.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise CallError(f"cannot read the model {model}: {error.strerror}", ErrorCode.NOT_FOUND) from error
    if magic != _GGUF_MAGIC:
        raise CallError(f"{model} is not a GGUF model", ErrorCode.INVALID_ARGUMENT)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="penstock-"))
    if len(str(folder)) <= _LONGEST_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="penstock-", dir="/tmp"))


def _http(address: str, key: str) -> httpx.Client | None:
    if not hasattr(socket, "AF_UNIX"):
        return None
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=address),
        base_url="http://llama",
        headers={"Authorization": f"Bearer {key}"},
        timeout=5,
    )
