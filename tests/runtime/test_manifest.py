"""manifest.yml: what every key becomes, and what every mistake says."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import AuthoringError, ManifestError
from penstock.protocol.messages import OnDisconnect
from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.project import read_project

FULL = """\
name: storyteller
version: 1.10
description: Tells stories
entrypoint: run.py
engine: llamacpp:smollm2-135m
default_command: predict
startup: [initialize, {command: warm, input: {n: 1.0}}]
state: [model]
commands:
  predict:
    concurrency: 8
    queue: 0
    isolation: thread
    timeouts: {queue_s: 10, first_item_s: 30, gap_s: 0.5, total_s: 300}
    openai: chat
    idempotent: yes
    on_disconnect: {grace_s: 30}
  chat:
workers: 0
workflows:
  story_then_title:
    description: A story, then its title
    input_schema: {type: object}
    output: "${steps.title.text}"
    steps:
      - {id: story, command: predict, input: {prompt: "${input.prompt}"}, timeout_s: 60,
         retry: {attempts: 2, delay_s: 0.5}}
      - parallel:
          - {id: title, command: predict, input: {prompt: "Title for: ${steps.story.text}"}}
          - {id: tags, command: tag, input: "${input}", when: "${input.want_tags}"}
requires: [torch>=2.4, "pillow[webp] >= 10 ; python_version > '3'", numpy]
"""


def load(folder: Path, text: str) -> Manifest:
    path = folder / "manifest.yml"
    path.write_text(text)
    return load_manifest(path)


def refusals(folder: Path, text: str) -> list[str]:
    """Return the lines of the refusal, without the file's path."""
    with pytest.raises(ManifestError) as refused:
        load(folder, text)
    return str(refused.value).replace(f"{folder / 'manifest.yml'}:", "").splitlines()


def test_every_key(tmp_path: Path) -> None:
    manifest = load(tmp_path, FULL)
    assert (manifest.name, manifest.version, manifest.description) == ("storyteller", "1.10", "Tells stories")
    assert (manifest.entrypoint, manifest.engine) == ("run.py", "llamacpp:smollm2-135m")
    assert (manifest.default_command, manifest.state, manifest.workers) == ("predict", ("model",), 0)
    assert [(s.command, s.input) for s in manifest.startup] == [("initialize", {}), ("warm", {"n": 1.0})]
    predict, chat = manifest.commands["predict"], manifest.commands["chat"]
    assert (predict.concurrency, predict.queue, predict.isolation) == (8, 0, "thread")
    assert (predict.openai, predict.idempotent, predict.on_disconnect) == ("chat", True, OnDisconnect(30))
    times = predict.timeouts
    assert (times.queue_s, times.first_item_s, times.gap_s, times.total_s) == (10, 30, 0.5, 300)
    assert (chat.concurrency, chat.queue, chat.isolation, chat.on_disconnect) == (None, None, None, None)
    assert len(manifest.requires) == 3
    plan = manifest.plans()["story_then_title"]
    assert [[step.id for step in stage] for stage in plan.stages] == [["story"], ["title", "tags"]]
    story = next(plan.steps())
    assert (story.timeout_s, story.attempts, story.delay_s) == (60, 2, 0.5)


def test_a_name_is_enough(tmp_path: Path) -> None:
    manifest = load(tmp_path, "name: a-1\n")
    assert (manifest.version, manifest.default_command, manifest.workers) == ("0.0.0", "predict", 0)


@pytest.mark.parametrize("key", ["commands", "startup", "workflows", "description", "version", "requires"])
def test_a_key_without_a_value_is_as_good_as_absent(tmp_path: Path, key: str) -> None:
    assert getattr(load(tmp_path, f"name: a\n{key}:\n"), key) == getattr(Manifest(), key)


@pytest.mark.parametrize(
    ("written", "version"),
    [("1.0", "1.0"), ("2", "2"), ("0x10", "0x10"), ("1.2.3", "1.2.3"), ("true", "true")],
)
def test_versions_are_text_as_they_are_written(tmp_path: Path, written: str, version: str) -> None:
    assert load(tmp_path, f"name: a\nversion: {written}\n").version == version


def test_names_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    text = (
        "name: 123\nstartup: [on, {command: 1}]\nstate: [no]\nrequires: [3]\ncommands: {off: {queue: 1}}\n"
        "workflows: {1: {steps: [{id: yes, command: 2, input: {n: 3}}, "
        "{parallel: [{id: no, command: on}]}]}}\n"
    )
    manifest = load(tmp_path, text)
    assert manifest.name == "123"
    assert [step.command for step in manifest.startup] == ["on", "1"]
    assert (manifest.state, manifest.requires, list(manifest.commands)) == (("no",), ("3",), ["off"])
    steps = list(manifest.plans()["1"].steps())
    assert [(step.id, step.command) for step in steps] == [("yes", "2"), ("no", "on")]
    assert steps[0].input.value == {"n": 3}  # an input is not text: it keeps its type


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: My Project", "1: name: should be small letters, digits and '-' only, such as my-project"),
        ("name: a\nversion: [1]", "2: version: should be text (not a list)"),
        ("name: a\nworkers: -1", "2: workers: should be greater than or equal to 0 (not -1)"),
        ("name: a\nworkers: many", "2: workers: should be a valid integer"),
        ("name: a\nstartup: initialize", "2: startup: should be a list (not 'initialize')"),
        ("name: a\nstartup:\n- input: {}", "3: startup.0.command: this is missing; add it"),
        ("name: a\nrequires: ['!']", "2: requires.0: should be a requirement, such as torch>=2.4 (not '!')"),
        ("name: a\ncommands: 3", "2: commands: should be a mapping (not 3)"),
        ("name: a\ncommands:\n  x: 3", "3: commands.x: should be a mapping (not 3)"),
        ("name: a\ncommands:\n  x:\n    concurrency: 0", "4: commands.x.concurrency: should be greater than"),
        ("name: a\ncommands: {x: {queue: -1}}", "2: commands.x.queue: should be greater than or equal to 0"),
        (
            "name: a\ncommands: {x: {isolation: fork}}",
            "'thread' or 'process' (not 'fork')",
        ),
        (
            "name: a\ncommands: {x: {openai: images}}",
            "2: commands.x.openai: should be 'chat', 'completion', 'embeddings' or 'transport' (not",
        ),
        (
            "name: a\ncommands: {x: {idempotent: maybe}}",
            "2: commands.x.idempotent: should be a valid boolean",
        ),
        (
            "name: a\ncommands: {x: {on_disconnect: stay}}",
            'on_disconnect is "cancel", "continue" or {"grace_s"',
        ),
        ("name: a\ncommands: {x: {on_disconnect: {grace_s: -1}}}", "on_disconnect.grace_s is not between"),
        ("name: a\ncommands: {x: {timeouts: {gap_s: 0}}}", "2: commands.x.timeouts.gap_s: should be greater"),
        (
            "name: a\ncommands: {x: {timeouts: {total_s: 9e9}}}",
            "timeouts.total_s: should be less than or equal",
        ),
        (
            "name: a\nworkflows: {'a b': {steps: [{id: x, command: y}]}}",
            "2: workflows.a b: should be 1 to 128",
        ),
        ("name: a\nworkflows: {w: {}}", "2: workflows.w.steps: this is missing; add it"),
        ("name: a\nworkflows: {w: {steps: []}}", "2: workflows.w.steps: needs at least one step"),
        ("name: a\nworkflows: {w: {steps: [{parallel: []}]}}", "steps.0.parallel: needs at least one step"),
        (
            "name: a\nworkflows: {w: {steps: [{id: a.b, command: y}]}}",
            "steps.0.id: should be 1 to 64 letters",
        ),
        (
            "name: a\nworkflows:\n  w:\n    steps:\n    - id: x",
            "5: workflows.w.steps.0.command: this is missing",
        ),
        (
            "name: a\nworkflows: {w: {steps: [{id: x, command: y, input: 3}]}}",
            "should be a mapping, or one ref",
        ),
        ("name: a\nworkflows: {w: {steps: [{id: x, command: y, retry: {attempts: 0}}]}}", "retry.attempts: "),
        (
            "name: a\nworkflows: {w: {steps: [{id: x, command: y, timeout_s: 0}]}}",
            "timeout_s: should be greater",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (line,) = refusals(tmp_path, text)
    assert says in line


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = refusals(tmp_path, "name: A\nworkers: x\ncommands:\n  p: {queue: x}\n  q: {queue: y}\n")
    assert [line.partition(":")[0] for line in told] == ["1", "4", "5", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no mapping; a manifest needs at least `name: my-project`"),
        ("- a", "there is no mapping"),
        ("version: 1", "`name` is missing; add a line such as `name: my-project`"),
        ("name:", "`name` is missing"),
    ],
)
def test_what_is_no_manifest_at_all(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusals(tmp_path, text)[0]


def test_unknown_keys_are_warned_about_with_their_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "name: a\nnmae: b\nbuild: {gpu: true}\ncommands:\n  p:\n    concurency: 1\n    timeouts: {gap: 1}\n"
        "startup:\n- {command: p, inputs: {}}\nworkflows:\n  w:\n    steps:\n"
        "    - {id: x, command: p, whn: true, retry: {times: 3}}\n"
        "    - parallel: [{id: y, command: p}]\n      max: 3\n"
    )
    with caplog.at_level(logging.WARNING, "penstock.manifest"):
        load(tmp_path, text)
    told = [message.removeprefix(f"{tmp_path / 'manifest.yml'}:") for message in caplog.messages]
    assert sorted(told) == sorted(
        [
            "2: nmae: not used by this version; did you mean name?",
            "3: build: not used by this version; known are commands, default_command, description, engine, "
            "entrypoint, name, requires, startup, state, version, workers, workflows",
            "6: commands.p.concurency: not used by this version; did you mean concurrency?",
            "7: commands.p.timeouts.gap: not used by this version; did you mean gap_s?",
            "9: startup.0.inputs: not used by this version; did you mean input?",
            "13: workflows.w.steps.0.whn: not used by this version; did you mean when?",
            "13: workflows.w.steps.0.retry.times: not used by this version; known are attempts, delay_s",
            "15: workflows.w.steps.1.max: not used by this version; known are parallel",
        ]
    )


@pytest.mark.parametrize("entrypoint", ["../run.py", "/etc/passwd"])
def test_an_entrypoint_outside_the_project(tmp_path: Path, entrypoint: str) -> None:
    (tmp_path / "manifest.yml").write_text(f"name: a\nentrypoint: {entrypoint}\n")
    with pytest.raises(AuthoringError, match=r"manifest.yml:2: entrypoint: .* lies outside the project"):
        read_project(tmp_path)


def test_an_entrypoint_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "manifest.yml").write_text("name: a\nentrypoint: run.py\n")
    with pytest.raises(AuthoringError, match=r"manifest.yml:2: entrypoint: run.py does not exist; create it"):
        read_project(tmp_path)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 400)
    | st.sampled_from(["", "a", "p", "${input.x}", "thread"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "command", "steps", "parallel", "input", "queue", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(Manifest.model_fields.keys() - {"name"})), values, max_size=4))
def test_anything_is_a_manifest_or_its_mistakes_have_lines(tmp_path: Path, data: dict[str, Any]) -> None:
    text = yaml.safe_dump({"name": "a", **data})
    path = tmp_path / "manifest.yml"
    path.write_text(text)
    try:
        load_manifest(path)
    except ManifestError as refused:
        told = re.findall(rf"^{re.escape(str(path))}:(\d+): ", str(refused), re.MULTILINE)
    else:
        return
    assert told
    assert all(1 <= int(line) <= len(text.splitlines()) for line in told)
