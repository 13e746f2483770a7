"""The SDK's serializers, under the interpreter that has them.

Each line of the input is a JSON array of pairs: a type and data of it, serialized, in hex.  Each line of the
output is what the SDK makes of the values that it reads, again as data, or why it cannot.
"""

import json
import sys

from clarifai.runners.utils.method_signatures import (
    build_function_signature,
    serializer_from_signature,
    signatures_to_json,
)
from clarifai_grpc.grpc.api import resources_pb2


def again(kind: str, data: str) -> str:
    serializer = serializer_from_signature(resources_pb2.ModelTypeField.FromString(bytes.fromhex(kind)))
    value = serializer.deserialize(resources_pb2.Data.FromString(bytes.fromhex(data)))
    written = resources_pb2.Data()
    serializer.serialize(written, value)
    return written.SerializeToString().hex()


def signatures() -> str:
    from typing import Dict, Iterator, List, Tuple  # noqa: UP035  what models are written with

    from clarifai.runners.utils.data_types import Image, NamedFields
    from clarifai.runners.utils.data_utils import Param

    def many(
        text: str,
        image: Image,
        pairs: List[Tuple[int, str]],  # noqa: UP006
        fields: NamedFields(x=str, y=float),
        plain: Dict[str, int],  # noqa: UP006
        count: int = Param(default=3, description="how many", min_value=1, max_value=9),
        mode: str = Param(default="a", choices=["a", "b"]),
        hint: str = None,  # noqa: RUF013
        loud: bool = True,
        data: bytes = b"x",
        more: dict = {},  # noqa: B006
    ) -> List[Image]:  # noqa: UP006
        """Do much."""

    def talk(texts: Iterator[str], mark: str = "!") -> Iterator[str]:
        yield ""

    found = {function.__name__: build_function_signature(function) for function in (many, talk)}
    return signatures_to_json(found)


sys.stdout.write(signatures() + "\n")
sys.stdout.flush()
for line in sys.stdin:
    answers = []
    for kind, data in json.loads(line):
        try:
            answers.append(again(kind, data))
        except Exception as error:  # noqa: BLE001  the SDK raises all kinds
            answers.append(f"{type(error).__name__}: {error}")
    sys.stdout.write(json.dumps(answers) + "\n")
    sys.stdout.flush()
