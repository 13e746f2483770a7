"""The data types of Clarifai's models: what is written is read again the same, and what is wrong is told."""

from __future__ import annotations

import base64
import io
import json
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple, Union  # noqa: UP035 - as models have them

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from penstock.integrations.model_folder import data_types as t
from penstock.integrations.model_folder.conversion import Conversion
from penstock.protocol.values import encode_value

conversion = Conversion(t, t.Param)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
# Without -0.0: a box of zeros is none, whatever their signs.
numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
urls = texts.map("http://{}".format)
media = st.one_of(
    st.builds(dict, url=urls),
    st.builds(dict, bytes=st.binary(min_size=1, max_size=20)),
    st.builds(dict, url=urls, bytes=st.binary(min_size=1, max_size=20)),
)
images = media.map(lambda given: t.Image(**given))
concepts = st.builds(t.Concept, texts, numbers, texts.filter(bool))
coordinates = st.lists(numbers, min_size=4, max_size=4)
points = st.tuples(numbers, numbers, numbers)
regions = st.builds(
    t.Region,
    box=st.none() | coordinates,
    concepts=st.lists(concepts, max_size=2),
    mask=st.none() | images,
    point=st.none() | points,
    track_id=st.none() | texts,
    text=st.none() | texts,
    id=st.none() | texts,
)
frames = st.builds(
    t.Frame,
    image=st.none() | images,
    regions=st.lists(regions, max_size=2),
    time=st.none() | st.floats(0, 1e6),
    index=st.none() | st.integers(0, 2**32 - 1),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (t.Text, st.builds(t.Text, texts, st.none() | urls)),
    "image": (t.Image, images),
    "audio": (t.Audio, media.map(lambda given: t.Audio(**given))),
    "video": (t.Video, media.map(lambda given: t.Video(**given))),
    "concept": (t.Concept, concepts),
    "region": (t.Region, regions),
    "frame": (t.Frame, frames),
    "json": (t.JSON, plain.map(t.JSON)),
    "bytes": (bytes, st.binary(max_size=20)),
    "list": (List[t.Concept], st.lists(concepts, max_size=3)),  # noqa: UP006
    "tuple": (Tuple[t.Text, int], st.tuples(texts.map(t.Text), st.integers())),  # noqa: UP006
    "dict": (Dict[str, t.Text], st.dictionaries(texts, texts.map(t.Text), max_size=2)),  # noqa: UP006
    "optional": (Optional[t.Concept], st.none() | concepts),  # noqa: UP045
    "record": (
        t.NamedFields(x=str, y=List[t.Text], b=bytes),  # noqa: UP006
        st.builds(t.NamedFields, x=texts, y=st.lists(texts.map(t.Text), max_size=2), b=st.binary(max_size=9)),
    ),
    "any record": (
        t.NamedFields,
        st.dictionaries(st.just("x"), plain).map(lambda given: t.NamedFields(**given)),
    ),
}


def read(hint: Any, sent: Any) -> Any:
    config = {"val_json_bytes": "base64"}
    form = conversion.hint(hint)
    adapter = TypeAdapter(form, config=config) if hint is bytes else TypeAdapter(form)  # type: ignore[arg-type]
    return adapter.validate_json(json.dumps(sent))


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_what_is_written_is_read_again_as_the_same(name: str, data: st.DataObject) -> None:
    hint, values = VALUES[name]
    value = data.draw(values)
    written = json.loads(encode_value(conversion.write(value)))
    again = read(hint, written)
    assert repr(again) == repr(value)
    assert json.loads(encode_value(conversion.write(again))) == written


@pytest.mark.parametrize(
    ("hint", "sent", "said"),
    [
        (t.Text, 1, "string"),
        (t.Text, {"txt": "a"}, "txt"),
        (t.Image, "aGFsbG8=", "Media"),
        (t.Image, {}, "give base64, or a url"),
        (t.Image, {"base64": "?"}, "base64"),
        (t.Concept, {"value": 1}, "name"),
        (t.Concept, {"name": "a", "value": "high"}, "value"),
        (t.Region, {"box": [1, 2, 3]}, "box"),
        (t.Region, {"point": [1, 2]}, "point"),
        (t.Frame, {"time": -1}, "time"),
        (t.Frame, {"index": 2**32}, "index"),
        (t.NamedFields(x=str), {"x": "a", "y": "b"}, "y"),
        (t.NamedFields, [], "dict"),
    ],
)
def test_what_is_wrong_is_told(hint: Any, sent: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        read(hint, sent)


@pytest.mark.parametrize("hint", [str, int, Literal["a"], Annotated[int, Field(ge=1)], dict, Union[int, str]])  # noqa: UP007
def test_other_types_stay_as_they_are(hint: Any) -> None:
    assert conversion.hint(hint) == hint


def test_a_record_may_be_a_class_of_its_own() -> None:
    class Pair(t.NamedFields):
        x: str
        y: t.Text

    assert repr(read(Pair, {"x": "a", "y": "b"})) == repr(t.NamedFields(x="a", y=t.Text("b")))


def test_bounds_stay_on_a_type_of_ours() -> None:
    with pytest.raises(ValidationError, match="at most 1 item"):
        read(Annotated[list[t.Text], Field(max_length=1)], ["a", "b"])


# -- what numpy and Pillow make ------------------------------------------------------------------------


def test_arrays() -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    array = np.arange(6, dtype="int16").reshape(2, 3)
    written = conversion.write(array)
    assert written == {
        "buffer": base64.b64encode(array.tobytes()).decode(),
        "shape": [2, 3],
        "dtype": "int16",
    }
    again = read(np.ndarray, written)
    assert again.dtype == array.dtype
    assert (again == array).all()
    again[0, 0] = 7  # a model may write into what it is given
    wrong: tuple[dict[str, Any], ...] = (
        {"dtype": "object"},
        {"dtype": "S0"},
        {"dtype": "nothing"},
        {"shape": [2]},
        {"shape": [-1, 3]},
        {"shape": [2**31, 0], "buffer": ""},
        {"shape": [2**30] * 9 + [0], "buffer": ""},
        {"shape": [1] * 99 + [6]},
    )
    for change in wrong:
        with pytest.raises(ValidationError):
            read(np.ndarray, written | change)


def test_pictures() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    picture = pillow.new("RGB", (2, 3), "red")
    written = conversion.write(picture)
    again = read(pillow.Image, written)
    assert (again.size, again.getpixel((0, 0))) == ((2, 3), (255, 0, 0))
    for wrong in ({"base64": "aGFsbG8="}, {"url": "http://u"}):
        with pytest.raises(ValidationError, match="no image that can be read"):
            read(pillow.Image, wrong)
    image = t.Image.from_pil(picture, "BMP")
    assert image.to_pil().size == (2, 3)
    assert pillow.open(io.BytesIO(base64.b64decode(image.to_base64_str()))).format == "BMP"


# -- the stand-ins -------------------------------------------------------------------------------------


def test_named_fields_are_a_type_or_a_value() -> None:
    kind = t.NamedFields(x=str, y=list[int])
    assert isinstance(kind, type)
    value = kind(x="a", y=[1])
    assert (value.x, value["y"], "z" in value, dict(value.items())) == ("a", [1], False, {"x": "a", "y": [1]})
    value["x"] = "b"
    assert value == t.NamedFields(x="b", y=[1])


def test_what_has_no_bytes_says_so() -> None:
    with pytest.raises(ValueError, match="Audio has no bytes"):
        t.Audio.from_url("http://u").to_base64_str()
    with pytest.raises(TypeError, match="by name"):
        t.Image("http://u")


def test_values_compare_and_show() -> None:
    assert (t.Text("a") == "a", t.Text("a") == t.Text("a"), t.Text("a", "u") == t.Text("a")) == (
        True,
        True,
        False,
    )
    assert (bool(t.Text("")), bool(t.JSON({})), bool(t.JSON([0]))) == (False, False, True)
    assert (t.JSON.from_json("[1]") == [1], t.JSON([1]).to_json(), t.JSON(1) == t.JSON(1)) == (
        True,
        "[1]",
        True,
    )
    assert repr(t.Image(bytes=b"abc", url="u")) == "Image(url='u', bytes=<3 bytes>)"
