"""A model of the package transformers in this process: loaded from a folder, asked from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from penstock.engines.transformers_sampling import Choosing, processors
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineRequest

_NEEDED = ("torch", "transformers")


class Stopped(Exception):
    """The generation was told to stop, and has."""


class TransformersSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is run.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``None`` is ``cuda`` where torch has it, else
            ``cpu``.
        dtype: Of the weights; ``auto`` is what the folder says.
        slots: Calls answered at the same time.
        context_tokens: What prompt and answer of one call may take together, in tokens; ``None`` is what the
            model was made for.
        kv_tokens: What those of all calls may take together; ``None`` is ``slots`` times that.
    """

    device: Annotated[str, msgspec.Meta(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = 2
    context_tokens: Annotated[int, msgspec.Meta(ge=16)] | None = None
    kv_tokens: Annotated[int, msgspec.Meta(ge=16, le=2**31)] | None = None

    @classmethod
    def of(cls, options: Mapping[str, object]) -> TransformersSettings:
        """Check options by name; numbers may be texts.

        Raises:
            CallError: ``invalid_argument``, naming the option.
        """
        try:
            return msgspec.convert(dict(options), cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            raise CallError(
                f"transformers: {error}; options are {known}", ErrorCode.INVALID_ARGUMENT
            ) from error


class CausalModel:
    """One loaded model and its tokenizer.  Calls block, and may be made from several threads at once.

    Only what is in the folder is used: nothing is downloaded, no code of the folder is run, and weights are
    read as safetensors only, which cannot hold code.

    Raises:
        CallError: ``unavailable`` when a library is not installed, ``invalid_argument`` when the folder holds
            no model that can be loaded, or the device is not there.
    """

    def __init__(self, folder: Path, settings: TransformersSettings) -> None:
        refuse_without_libraries()
        self._torch: Any = import_module("torch")
        self._library: Any = import_module("transformers")
        self.device = self._device(settings.device)
        self._tokenizer, self._model = self._load(folder, settings.dtype)
        config = self._model.generation_config
        self.ends = _ids(config.eos_token_id) or _ids(self._tokenizer.eos_token_id)
        self.choosing = Choosing.of_folder(config)
        self.context_tokens = _least(
            settings.context_tokens,
            getattr(self._model.config.get_text_config(), "max_position_embeddings", None),
        )
        # What else the folder says about generating must not mix with what a request says.
        self._model.generation_config = self._library.GenerationConfig()
        # A tokenizer that is used in two threads at once may fail ("Already borrowed").
        self._encoding = threading.Lock()
        self._here = threading.local()
        self._listen_between_layers()

    def encode(self, request: EngineRequest) -> list[int]:
        """Return the tokens of a prompt, or of messages by the model's chat template.

        Raises:
            CallError: ``not_implemented`` for messages that hold more than text, or that need a chat template
                the model does not have.
            Exception: What the tokenizer or the template says about them.
        """
        with self._encoding:
            if request.messages is None:
                return self._tokens(request.prompt, special=True)
            messages = [{**message, "content": _text_of(message)} for message in request.messages]
            if self._tokenizer.chat_template is None:
                return self._tokens(_only_text(messages), special=True)
            asked = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            # The template has written the special tokens already.
            return self._tokens(asked, special=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def generate(
        self,
        prompt: list[int],
        choosing: Choosing,
        max_tokens: int,
        on_token: Callable[[int], bool],
        stopping: Callable[[], bool],
    ) -> None:
        """Continue a prompt; blocks until it has ended.

        Args:
            prompt: Its tokens.
            choosing: How tokens are chosen.
            max_tokens: Most tokens to generate.
            on_token: Gets each token, and returns true to stop.
            stopping: Asked between two layers of the model.

        Raises:
            Stopped: ``stopping`` returned true.
            CallError: ``resource_exhausted``: there is not enough memory.
        """
        torch = self._torch
        self._here.stopping = stopping
        try:
            asked = torch.tensor([prompt], device=self.device)
            self._model.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                generation_config=self._config(max_tokens),
                logits_processor=self._library.LogitsProcessorList(
                    processors(choosing, len(prompt), self.device)
                ),
                stopping_criteria=self._library.StoppingCriteriaList([_Listener(torch, on_token)]),
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            said = f"there is not enough memory on {self.device} for this call: {error}"
            raise CallError(said, ErrorCode.RESOURCE_EXHAUSTED) from error
        finally:
            self._here.stopping = None
            if self.device.type == "cuda":
                # Kernels are queued; the work has stopped when they have.
                torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Free the model; nothing may run in it any more."""
        self._model = self._tokenizer = None
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _device(self, name: str | None) -> Any:
        torch = self._torch
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        there = {"cuda": torch.cuda.device_count, "mps": lambda: int(torch.backends.mps.is_available())}
        if device.type in there and (device.index or 0) >= there[device.type]():
            said = f"transformers: torch finds no device {name} here; leave device out, or say cpu"
            raise CallError(said, ErrorCode.INVALID_ARGUMENT)
        return device

    def _load(self, folder: Path, dtype: str) -> tuple[Any, Any]:
        only = {"local_files_only": True, "trust_remote_code": False}
        broken = import_module("safetensors").SafetensorError
        bars = self._library.utils.logging
        shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            tokenizer = self._library.AutoTokenizer.from_pretrained(str(folder), **only)
            model, report = self._library.AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True, **only
            )
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, broken) as error:
            said = f"transformers could not load the model in {folder}: {error}"
            raise CallError(said, ErrorCode.INVALID_ARGUMENT) from error
        finally:
            if shown:
                bars.enable_progress_bar()
        _refuse_incomplete(folder, tokenizer, report)
        return tokenizer, model.to(self.device).eval()

    def _config(self, max_tokens: int) -> Any:
        ends = sorted(self.ends) or None
        return self._library.GenerationConfig(
            do_sample=False,  # our last processor leaves one token to choose
            max_new_tokens=max_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0] if ends else 0,
        )

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        _refuse_non_unicode(text)
        found: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return found

    def _listen_between_layers(self) -> None:
        # A long prompt is one call of the model, and only between its layers it can be heard that nobody
        # wants it any more.
        def hear(*_: object) -> None:
            stopping = getattr(self._here, "stopping", None)
            if stopping is not None and stopping():
                raise Stopped

        for module in self._model.modules():
            if isinstance(module, self._torch.nn.ModuleList):
                for layer in module:
                    layer.register_forward_pre_hook(hear)


class _Listener:
    """Gives each token away as it comes; for the library, it is what says whether to stop."""

    def __init__(self, torch: Any, on_token: Callable[[int], bool]) -> None:
        self._torch = torch
        self._on_token = on_token

    def __call__(self, input_ids: Any, scores: Any, **_: object) -> Any:
        stop = self._on_token(int(input_ids[0, -1]))
        return self._torch.full((1,), stop, device=input_ids.device, dtype=self._torch.bool)


def refuse_without_libraries() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        CallError: ``unavailable``, naming the extra.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise CallError(
            f"the engine transformers needs {' and '.join(missing)}; install with: "
            "pip install 'penstock[transformers]'",
            ErrorCode.UNAVAILABLE,
            retryable=False,
        )


def _refuse_incomplete(folder: Path, tokenizer: Any, report: Mapping[str, Any]) -> None:
    # The library would go on: with random numbers for weights, and a tokenizer that knows no words.
    files = tokenizer.vocab_files_names.values()
    missing = sorted(report["missing_keys"])
    lacks = ""
    if files and not any((folder / file).is_file() for file in files):
        lacks = f"a tokenizer: none of {', '.join(files)} is in it"
    elif missing:
        lacks = f"{len(missing)} of its weights, such as {missing[0]}"
    if lacks:
        raise CallError(f"the model in {folder} lacks {lacks}", ErrorCode.INVALID_ARGUMENT)


def _refuse_non_unicode(text: str) -> None:
    # The tokenizer would say something about unions of its types.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        said = f"the prompt is no Unicode text: {error.reason} at character {error.start}"
        raise CallError(said, ErrorCode.INVALID_ARGUMENT) from error


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise _bad_content("is neither a text nor a list of parts", ErrorCode.INVALID_ARGUMENT)
    if any(part.get("type") != "text" for part in content):
        raise _bad_content("holds more than text, which this engine cannot read", ErrorCode.NOT_IMPLEMENTED)
    return "".join(part["text"] for part in content)


def _bad_content(what: str, code: ErrorCode) -> CallError:
    details = [{"path": ["messages"], "reason": f"content {what}"}]
    return CallError(f"messages: the content of one {what}", code, details=details)


def _only_text(messages: Sequence[Mapping[str, Any]]) -> str:
    if len(messages) == 1 and messages[0].get("role") == "user":
        text: str = messages[0]["content"]
        return text
    raise CallError(
        "messages: this model has no chat template, so it continues one user message and knows no "
        "conversation; send one message, or add chat_template.jinja to its folder",
        ErrorCode.NOT_IMPLEMENTED,
    )


def _ids(found: int | Sequence[int] | None) -> frozenset[int]:
    if found is None:
        return frozenset()
    return frozenset((found,) if isinstance(found, int) else found)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
