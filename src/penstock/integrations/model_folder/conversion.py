"""Between the Python types that Clarifai's models take and give, and JSON.

The types are found under their import names, so that it makes no difference whose they are: those of the
package, or the stand-ins.
"""

from __future__ import annotations

import base64
import io
import sys
import types
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from penstock.integrations.model_folder import forms
from penstock.protocol.marks import CLARIFAI

_PLAIN = frozenset((str, int, float, bool, type(None)))


class Conversion:
    """Turns JSON into what a method takes, and what it gives into JSON.

    Args:
        found: The module with the data types.
        param: The type of defaults that say more than their value.
    """

    def __init__(self, found: Any, param: Any) -> None:
        self.param = param
        self._types = found
        self._simple: Mapping[Any, Any] = {
            found.Text: Annotated[str | forms.Text, AfterValidator(self._text), _marked("text")],
            found.Image: _media(found.Image, "image"),
            found.Audio: _media(found.Audio, "audio"),
            found.Video: _media(found.Video, "video"),
            found.Concept: Annotated[forms.Concept, AfterValidator(self._concept), _marked("concept")],
            found.Region: Annotated[forms.Region, AfterValidator(self._region), _marked("region")],
            found.Frame: Annotated[forms.Frame, AfterValidator(self._frame), _marked("frame")],
            found.JSON: Annotated[Any, AfterValidator(found.JSON)],
            found.NamedFields: Annotated[
                dict[str, Any], AfterValidator(lambda given: found.NamedFields(**given))
            ],
        }
        self._writers: Mapping[type, Callable[[Any], Any]] = {
            found.Text: lambda value: {"text": value.text, "url": value.url} if value.url else value.text,
            found.Image: _write_media,
            found.Audio: _write_media,
            found.Video: _write_media,
            found.Concept: lambda value: {"name": value.name, "value": value.value, "id": value.id},
            found.Region: self._write_region,
            found.Frame: self._write_frame,
            found.JSON: lambda value: self.write(value.value),
        }

    # -- what a caller sends ---------------------------------------------------------------------------

    def hint(self, hint: Any) -> Any:
        """Return the type to check JSON against, which gives values of the type ``hint``."""
        if (simple := self._simple_of(hint)) is not None:
            return simple
        if (fields := self._fields_of(hint)) is not None:
            return self._record(fields)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            inner = (self.hint(arguments[0]), *arguments[1:])
            return Annotated[inner]
        if origin in (Union, types.UnionType):
            return Union[tuple(map(self.hint, arguments))]  # noqa: UP007 - there is no other way to build one
        if origin in (list, tuple, dict, set, frozenset):
            return origin[tuple(map(self.hint, arguments))]
        return hint

    def _simple_of(self, hint: Any) -> Any:
        pillow, numpy = sys.modules.get("PIL.Image"), sys.modules.get("numpy")
        if pillow is not None and hint is pillow.Image:
            return Annotated[forms.Media, AfterValidator(self._picture), _marked("image")]
        if numpy is not None and numpy.ndarray in (hint, get_origin(hint)):
            return Annotated[forms.Array, AfterValidator(forms.Array.build), _marked("ndarray")]
        return self._simple.get(hint) if isinstance(hint, type) else None

    def _fields_of(self, hint: Any) -> Mapping[str, Any] | None:
        named = self._types.NamedFields
        if isinstance(hint, type) and issubclass(hint, named):
            return get_type_hints(hint, include_extras=True)
        return dict(hint.items()) if isinstance(hint, named) else None

    def _record(self, fields: Mapping[str, Any]) -> Any:
        shape = TypedDict("NamedFields", {name: self.hint(hint) for name, hint in fields.items()})  # type: ignore[misc]
        shape.__pydantic_config__ = forms.CONFIG  # type: ignore[attr-defined]
        build = AfterValidator(lambda given: self._types.NamedFields(**given))
        return Annotated[shape, build, _marked("named_fields")]

    def _text(self, given: str | forms.Text) -> Any:
        text = self._types.Text
        return text(given) if isinstance(given, str) else text(given.text, url=given.url)

    def _picture(self, given: forms.Media) -> Any:
        pillow = import_module("PIL.Image")
        try:
            return pillow.open(io.BytesIO(given.base64))
        except (OSError, pillow.DecompressionBombError) as error:
            raise ValueError("base64 holds no image that can be read; a url is not fetched") from error

    def _concept(self, given: forms.Concept) -> Any:
        return self._types.Concept(given.name, given.value, given.id)

    def _region(self, given: forms.Region) -> Any:
        return self._types.Region(
            box=given.box,
            concepts=[self._concept(concept) for concept in given.concepts],
            mask=self._image(given.mask),
            point=given.point,
            track_id=given.track_id,
            text=given.text,
            id=given.id,
        )

    def _frame(self, given: forms.Frame) -> Any:
        return self._types.Frame(
            image=self._image(given.image),
            regions=[self._region(region) for region in given.regions],
            time=given.time,
            index=given.index,
        )

    def _image(self, given: forms.Media | None) -> Any:
        return None if given is None else self._types.Image(url=given.url, bytes=given.base64)

    # -- what it is sent -------------------------------------------------------------------------------

    def write(self, value: Any) -> Any:
        """Return what a method gave with nothing left in it but what JSON has, as far as its type is known
        here; the rest is for the runtime to write or to refuse."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is bytes:
            return base64.b64encode(value).decode("ascii")
        if isinstance(value, (list, tuple)):
            return [self.write(item) for item in value]
        if isinstance(value, (dict, self._types.NamedFields)):
            return {name: self.write(item) for name, item in value.items()}
        for known, writer in self._writers.items():
            if isinstance(value, known):
                return writer(value)
        return _write_foreign(value)

    def _write_region(self, region: Any) -> dict[str, Any]:
        written: dict[str, Any] = {"id": region.id}
        if any(region.box):
            written["box"] = region.box
        if any(region.point):
            written["point"] = list(region.point)
        if region.mask.bytes or region.mask.url:
            written["mask"] = _write_media(region.mask)
        if region.concepts:
            written["concepts"] = self.write(region.concepts)
        return written | {
            name: getattr(region, name) for name in ("text", "track_id") if getattr(region, name)
        }

    def _write_frame(self, frame: Any) -> dict[str, Any]:
        written: dict[str, Any] = {"time": frame.time, "index": frame.index}
        if frame.image.bytes or frame.image.url:
            written["image"] = _write_media(frame.image)
        if frame.regions:
            written["regions"] = self.write(frame.regions)
        return written


def _marked(kind: str) -> Any:
    return Field(json_schema_extra={CLARIFAI: kind})


def _media(kind: Any, name: str) -> Any:
    build = AfterValidator(lambda given: kind(url=given.url, bytes=given.base64))
    return Annotated[forms.Media, build, _marked(name)]


def _write_media(value: Any) -> dict[str, str]:
    written = {"url": value.url} if value.url else {}
    if value.bytes:
        written["base64"] = base64.b64encode(value.bytes).decode("ascii")
    return written


def _write_foreign(value: Any) -> Any:
    pillow, numpy = sys.modules.get("PIL.Image"), sys.modules.get("numpy")
    if pillow is not None and isinstance(value, pillow.Image):
        with io.BytesIO() as file:
            value.save(file, format="PNG")
            return {"base64": base64.b64encode(file.getvalue()).decode("ascii")}
    if numpy is not None and isinstance(value, numpy.ndarray):
        buffer = base64.b64encode(value.tobytes()).decode("ascii")
        return {"buffer": buffer, "shape": list(value.shape), "dtype": str(value.dtype)}
    return value
