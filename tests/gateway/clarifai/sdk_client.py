"""What the tests have the SDK's client do, under the interpreter that has it.

The arguments are the URL of a gateway, and the name of what is to be done; what comes of it is the last line
of the output, as JSON.
"""

import json
import sys

from clarifai.client import Model
from clarifai.runners.utils.data_types import Image, NamedFields

base, what = sys.argv[1:]


def model(name: str, **more: str) -> Model:
    return Model(url=f"https://clarifai.com/u1/a1/models/{name}", base_url=base, pat="none", **more)


def said(work) -> str:
    """Return what an exception says."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  the SDK raises it bare
        return str(error)
    return "nothing"


def native() -> dict:
    found = model("native")
    image = Image(bytes=b"12345")
    endless = found.generate(text="e", count=10**9)
    begun = [next(endless), next(endless)]
    endless.close()
    return {
        "methods": list(found.available_methods()),
        "predict": found.predict(text="ab", times=3),
        "default": found.predict("ab"),
        "batch": found.predict([{"text": "a"}, {"text": "b", "times": 3}]),
        "generate": list(found.generate(text="g")),
        "begun": begun,
        "stream": list(found.stream(texts=iter(["a", "b"]), mark="?")),
        "see": [(each.name, each.value) for each in found.see(image=image, names=["cat", "dog"])],
        "region": [found.find(image=image).box, found.find(image=image).concepts[0].name],
        "fields": found.fields(given=NamedFields(x="q", y=3)).z,
        "value": found.value(value={"a": [1, None]}),
        "list": found.value(value=[1, "x"]),
        "turn": found.turn(data=b"abc", by=0.25, up=False).decode(),
        "fail": said(lambda: found.fail(text="way")),
        "wrong": said(lambda: list(found.generate(text="g", count=0))),
        "unknown": said(lambda: model("nope")),
        "gateway": model("gateway").predict(text="ab"),
        "old": found.predict_by_bytes(b"ab", input_type="text").outputs[0].data.text.raw,
    }


def toy(**selector: str) -> dict:
    found = model("toy", **selector)
    text, response = found.predict(text="ab", times=2, with_proto=True)
    return {
        "predict": text,
        "batch": found.predict([{"text": "a"}, {"text": "b"}]),
        "generate": list(found.generate(text="g", count=2)),
        "stream": list(found.stream(texts=iter(["a", "b"]), mark="?")),
        "fail": said(lambda: found.fail(text="way")),
        "half": said(lambda: list(found.half(text="way"))),
        "none": said(lambda: list(found.generate(text="g", count=0))),
        "req_id": response.status.req_id,
    }


def selected() -> dict:
    by_nodepool = {
        "compute_cluster_id": "local-runner-compute-cluster",
        "nodepool_id": "local-runner-nodepool",
    }
    return {
        "deployment": model("toy", deployment_id="local-toy").predict(text="ab"),
        "nodepool": model("toy", **by_nodepool).predict(text="ab"),
        "unknown": said(lambda: model("toy", deployment_id="other")),
    }


sys.stdout.write("\n" + json.dumps({"native": native, "toy": toy, "selected": selected}[what]()))
