"""The page at `/` in a real browser: what its user does, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from playground.tab import CONTROL, SHIFT, Tab

STATE = ".state"
OUTPUT = ".results .pane"


def told(tab: Tab) -> list[dict[str, Any]]:
    """Return the calls that the server knows."""
    found: list[dict[str, Any]] = httpx.get(f"{tab.url}/tasks").json()["tasks"]
    return found


def let_go(tab: Tab, times: int = 1) -> None:
    """Have a gated call go on."""
    body = {"command": "go", "input": {"times": times}}
    httpx.post(f"{tab.url}/v2/execute", json=body).raise_for_status()


# -- commands --------------------------------------------------------------------------------------------


def test_a_stream_grows_as_it_comes(tab: Tab) -> None:
    tab.open("#/command/gated")
    tab.put("words", "one two three")
    tab.click("button.main")
    tab.until_text(OUTPUT, "one ")
    assert tab.text(OUTPUT) == "one "
    assert tab.text(STATE).startswith("Running")
    let_go(tab)
    tab.until_text(OUTPUT, "two ")
    assert tab.text(OUTPUT) == "one two "
    let_go(tab, 2)
    tab.until_text(STATE, "Completed, 3 items")
    assert tab.text(OUTPUT) == "one two three "
    assert tab.text("#told").startswith("gated: Completed, 3 items")
    assert {"Task id", "Request id", "X-Request-Id", "ttft_ms", "total_ms", "items"} <= set(
        tab.see("[...document.querySelectorAll('.facts dt')].map((each) => each.textContent)")
    )
    drawn = tab.see("[...document.querySelectorAll('.plot svg')].map((each) => each.ariaLabel)")
    assert [words.partition(":")[0] for words in drawn] == [
        "Time to first token",
        "Gap between tokens",
        "Tokens per second",
    ]
    assert "longest" in drawn[1]
    assert "3 in all" in drawn[2]
    assert tab.see("document.querySelector('.plot path').getAttribute('d')") != ""


def test_text_that_comes_whole_each_time_takes_the_place_of_what_was_there(tab: Tab) -> None:
    tab.open("#/command/revise")
    for _ in range(2):
        tab.click("button.main")
        tab.until_text(STATE, "Completed, 4 items")
        assert tab.text(OUTPUT) == "Or not."
        tab.see("document.querySelector('.items').open = true")
        tab.until("document.querySelector('.items pre').textContent.split('\\n').length === 4")


def test_calls_of_views_that_were_left_go_on_and_a_connection_is_left_for_a_cancel(tab: Tab) -> None:
    tab.open("#/command/gated")
    fields = {"#/command/gated": "words", "#/workflow/tale": "words", "#/command/tell": "words"}
    for place, name in (*fields.items(), ("#/command/tokens", "n")):
        tab.see(f"location.hash = {json.dumps(place)}")
        tab.until(f"document.querySelector('a[aria-current]').hash === {json.dumps(place)}")
        tab.put(name, "1000000" if name == "n" else " ".join(["word"] * 500))
        if place == "#/command/tell":
            tab.put("pause_ms", "1000")
        tab.press("Enter", CONTROL)
        tab.until_text(OUTPUT, "o")
    tab.see("location.hash = '#/command/revise'")
    tab.until_text("h1", "revise")
    tab.click("button.main")
    tab.until_text(STATE, "4 calls run in this page already")
    for place in fields:
        tab.see(f"location.hash = {json.dumps(place)}")
        tab.until(f"document.querySelector('a[aria-current]').hash === {json.dumps(place)}")
        assert tab.text(STATE).startswith("Running")
        tab.press("Escape")
        tab.until_text(STATE, "Cancelled")
    tab.see("location.hash = '#/command/revise'")
    tab.until_text("h1", "revise")
    tab.click("button.main")
    tab.until_text(STATE, "Completed, 4 items")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_a_call_is_cancelled(tab: Tab, how: str) -> None:
    tab.open("#/command/gated")
    tab.put("words", "one two")
    tab.press("Enter", CONTROL)
    tab.until_text(OUTPUT, "one ")
    if how == "button":
        tab.click(".buttons button:not(.main)")
    else:
        tab.press("Escape")
    tab.until_text(STATE, "Cancelled, 1 items")
    assert tab.text(OUTPUT) == "one "  # what was there stays
    assert told(tab)[-1]["reason"] == "caller"
    assert not tab.see("document.querySelector('button.main').disabled")


def test_a_value_of_every_kind_goes_out_as_it_is(tab: Tab) -> None:
    tab.open("#/command/all")
    tab.put("name", "fox")
    tab.put("count", "3")
    tab.put("share", "0.25")
    tab.put("words", '["a", "b"]')
    tab.put("place", '{"x": 4}')
    tab.put("stop", "no JSON, but text")
    tab.click("[name=on]")
    tab.see("document.querySelector('[name=maybe]').value = 'false'")
    tab.see("document.querySelector('[name=colour]').value = '\"green\"'")
    tab.see(
        """(() => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array([0, 251, 255])], 'a.bin'));
            document.querySelector('[name=data]').files = files.files;
        })()"""
    )
    tab.press("Enter", CONTROL)
    tab.until_text(STATE, "Completed")
    assert json.loads(tab.text(".items pre")) == {
        "name": "fox",
        "count": 3,
        "share": 0.25,
        "on": True,
        "maybe": False,
        "colour": "green",
        "words": ["a", "b"],
        "place": {"x": 4, "y": 0},
        "data": [0, 251, 255],
        "stop": "no JSON, but text",
    }


def test_what_does_not_fit_is_told_at_its_field_and_goes_nowhere(tab: Tab) -> None:
    tab.open("#/command/all")
    calls = len(told(tab))
    tab.put("count", "12")
    tab.put("words", "[")
    tab.press("Enter", CONTROL)
    tab.until_text(".wrong", "a value is needed")
    faults = {
        name: tab.text(f".field:has([name={name}]) .wrong") for name in ("name", "count", "words", "share")
    }
    assert faults.pop("words").startswith("this is no JSON: ")
    assert faults == {"name": "a value is needed", "count": "at most 9", "share": ""}
    assert tab.see("document.activeElement.name") == "name"
    assert tab.see("document.activeElement.ariaInvalid") == "true"
    assert tab.see("document.querySelector('[name=name]').ariaRequired") == "true"
    marked = "[...document.querySelectorAll('.field')].filter((each) => each.querySelector('.mark'))"
    assert tab.see(f"{marked}.map((each) => each.querySelector('[name]').name)") == ["name", "count"]
    assert len(told(tab)) == calls


def test_what_the_server_finds_wrong_is_told_at_its_field(tab: Tab) -> None:
    tab.open("#/command/all")
    tab.put("name", "fox")
    tab.put("count", "1")
    tab.put("place", '{"y": 1}')
    tab.press("Enter", CONTROL)
    tab.until_text(".failure", "invalid_argument")
    assert tab.text(".field:has([name=place]) .wrong") == "x: missing"
    assert tab.see("document.activeElement.name") == "place"


def test_an_error_is_shown_with_its_code_and_its_id(tab: Tab) -> None:
    tab.open("#/command/fail")
    tab.click("button.main")
    tab.until_text(STATE, "Failed")
    assert tab.text(".failure .message") == "the model is out of ideas"
    assert tab.text(".failure .code") == "command_failed"
    assert tab.text(".failure .id") == told(tab)[-1]["request_id"]
    assert tab.see("document.querySelector('.failure').role") == "alert"


# -- conversations, workflows, tasks ---------------------------------------------------------------------


def test_a_conversation_goes_on(tab: Tab) -> None:
    tab.open("")  # a command that chats comes first
    assert tab.text("h1") == "chat"
    assert tab.see("document.activeElement.id") == "say"
    tab.type("hello")
    tab.press("Enter")
    tab.until_text(STATE, "Completed")
    assert tab.text("#told") == f"chat: {tab.text(STATE)}. 1: hello"
    tab.type("and")
    tab.press("Enter", SHIFT)
    assert tab.see("document.activeElement.value") == "and\n"
    tab.type("again")
    tab.press("Enter", CONTROL)
    tab.until("document.querySelectorAll('.turn').length === 4")
    tab.until_text(STATE, "Completed")
    turns = tab.see("[...document.querySelectorAll('.turn .text')].map((each) => each.innerText)")
    assert turns == ["hello", "1: hello", "and\nagain", "2: and\nagain"]
    tab.see("document.querySelector('.settings').open = true")
    tab.see("document.querySelector('[name=tone]').value = '\"loud\"'")
    tab.see("document.querySelector('#system').value = 'be brief: '")
    tab.click("#say")
    tab.type("third")
    tab.press("Enter")
    tab.until("document.querySelectorAll('.turn').length === 6")
    tab.until_text(".turn:last-child .text", "THIRD")
    assert tab.text(".turn:last-child .text") == "3: be brief:THIRD"
    tab.until_text(STATE, "Completed")
    tab.see(
        "[...document.querySelectorAll('button')].find((e) => e.textContent == 'New conversation').click()"
    )
    assert tab.see("document.querySelectorAll('.turn').length") == 0


def test_the_box_stays_in_view_while_an_answer_grows(tab: Tab) -> None:
    tab.open("#/chat/chat")
    tab.type("line\n" * 80 + "end")
    tab.press("Enter")
    tab.until_text(STATE, "Completed")
    spot = tab.see("document.querySelector('#say').getBoundingClientRect().toJSON()")
    assert tab.see("document.documentElement.scrollHeight > 2 * innerHeight")
    assert spot["top"] >= 0
    assert spot["bottom"] <= tab.see("innerHeight") + 1


def steps(tab: Tab) -> dict[str, str]:
    """Return how far each step of a workflow is."""
    rows = (
        "[...document.querySelectorAll('.steps > li')].map((each) => "
        "[each.querySelector('strong').textContent, each.dataset.state])"
    )
    return dict(tab.see(rows))


def test_a_workflow_shows_its_steps_as_they_run(tab: Tab) -> None:
    tab.open("#/workflow/tale")
    tab.put("words", "one two")
    tab.press("Enter", CONTROL)
    tab.until_text(OUTPUT, "one ")
    assert steps(tab) == {"tell": "running", "shout": "waiting", "echo": "waiting"}
    let_go(tab, 2)
    tab.until_text(STATE, "Completed")
    assert steps(tab) == {"tell": "done", "shout": "done", "echo": "done"}
    assert tab.text(OUTPUT) == "one two "
    assert tab.text(".steps li:nth-child(2) .text") == "ONE TWO "
    assert json.loads(tab.text(".results > div > .items pre"))["steps"]["echo"] == {"value": "one two"}


def test_a_step_that_is_skipped_and_one_that_fails(tab: Tab) -> None:
    tab.open("#/workflow/tale")
    tab.put("words", "one")
    tab.click("[name=loud]")
    tab.press("Enter", CONTROL)
    tab.until_text(OUTPUT, "one ")
    let_go(tab)
    tab.until_text(STATE, "Completed")
    assert steps(tab) == {"tell": "done", "shout": "skipped", "echo": "done"}
    tab.open("#/workflow/broken")
    tab.click("button.main")
    tab.until_text(STATE, "Failed")
    assert steps(tab) == {"first": "done", "second": "failed"}
    assert tab.text(".failure .message") == "step second: the model is out of ideas"


def test_the_list_of_tasks_cancels_one(tab: Tab) -> None:
    tab.open("#/command/gated")
    tab.put("words", "one two")
    tab.press("Enter", CONTROL)
    tab.until_text(OUTPUT, "one ")
    tab.see("location.hash = '#/tasks'")
    tab.until_text("tbody tr:first-child .badge", "streaming")
    assert tab.text("tbody tr:first-child code") == told(tab)[-1]["task_id"]
    tab.click("tbody tr:first-child button")
    tab.until_text("tbody tr:first-child .badge", "cancelled")
    assert tab.see("document.querySelector('tbody tr:first-child button')") is None
    tab.until_text("#told", "was cancelled")
    tab.see("history.back()")  # the view that began it has gone on
    tab.until_text(STATE, "Cancelled, 1 items")
    assert tab.text(OUTPUT) == "one "


# -- the page itself -------------------------------------------------------------------------------------

VIEWS = ("#/chat/chat", "#/command/all", "#/command/fail", "#/workflow/broken", "#/tasks")


def test_it_is_used_with_the_keyboard_alone(tab: Tab) -> None:
    tab.open("#/tasks")
    tab.press("Tab")
    assert tab.see("document.activeElement.id") == "skip"
    tab.press("Enter")
    assert tab.see("document.activeElement.id") == "main"
    tab.press("k", CONTROL)
    for _ in range(30):
        if tab.see("document.activeElement.textContent") == "shout":
            break
        tab.press("Tab")
    tab.press("Enter")
    tab.until("document.activeElement.tagName === 'H1' && document.activeElement.textContent === 'shout'")
    tab.press("Tab")
    assert tab.see("document.activeElement.name") == "text"
    tab.type("quiet")
    tab.press("Tab")
    assert tab.see("document.activeElement.textContent") == "Run"
    tab.press("Enter")
    tab.until_text(STATE, "Completed")
    assert tab.text(OUTPUT) == "QUIET"
    assert (
        tab.see("document.activeElement.textContent") == "Run"
    )  # the focus is not lost to a disabled button
    assert tab.see("document.activeElement.matches(':focus-visible')")
    tab.see("document.querySelector('#keys').focus()")
    tab.press("Enter")
    assert tab.see("document.querySelector('#help').open")
    tab.press("Escape")
    assert not tab.see("document.querySelector('#help').open")
    assert tab.see("document.activeElement.id") == "keys"


@pytest.mark.parametrize("view", VIEWS)
def test_everything_that_takes_the_focus_has_a_name(tab: Tab, view: str) -> None:
    tab.open(view)
    nodes = tab.page.command("Accessibility.getFullAXTree")["nodes"]
    takes = [
        node
        for node in nodes
        if any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", ()))
        and node["role"]["value"] not in ("RootWebArea", "main")
    ]
    assert len(takes) > 10
    assert [node["role"]["value"] for node in takes if not node.get("name", {}).get("value")] == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_has_room_for_it(tab: Tab, view: str) -> None:
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    tab.page.command("Emulation.setDeviceMetricsOverride", **size)
    try:
        tab.open(view)
        if view in ("#/command/fail", "#/workflow/broken"):
            tab.press("Enter", CONTROL)
            tab.click("button.main")
            tab.until_text(STATE, "Failed")
        assert tab.see("document.documentElement.scrollWidth") <= 320
        assert tab.see("innerWidth") == 320
        assert not tab.see("document.querySelector('#menu').open")
        tab.click("#menu summary")
        assert tab.see("document.querySelector('#menu').open")
    finally:
        tab.page.command("Emulation.clearDeviceMetricsOverride")


CONTRAST = """(() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = parts(colour).map((each) => each / 255)
            .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const [, , , alpha = 1] = parts(getComputedStyle(at).backgroundColor);
            if (alpha === 1) return getComputedStyle(at).backgroundColor;
        }
        return 'rgb(255, 255, 255)';
    };
    const found = [];
    const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (all.nextNode()) {
        const element = all.currentNode.parentElement;
        if (!all.currentNode.textContent.trim() || !element.checkVisibility()) continue;
        if (element.closest(':disabled')) continue;
        const pair = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => b - a);
        const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
        if (ratio < 4.5) found.push([all.currentNode.textContent, ratio]);
    }
    return found;
})()"""


def test_it_is_light_or_dark_and_to_be_read_either_way(tab: Tab) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.page.command("Emulation.setEmulatedMedia", features=features)
        for view in VIEWS:
            tab.open(view)
            if view == "#/command/fail":
                tab.click("button.main")
                tab.until_text(STATE, "Failed")
            assert tab.see(CONTRAST) == []
        grounds.append(tab.see("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]
    tab.click("#theme")  # from what the system has to light
    assert tab.text("#theme") == "Theme: light"
    assert tab.see("getComputedStyle(document.body).backgroundColor") == grounds[0]
    tab.open("")
    assert tab.see("getComputedStyle(document.body).backgroundColor") == grounds[0]
    tab.page.command("Emulation.setEmulatedMedia", features=[])


def test_many_tokens_leave_it_responsive(tab: Tab) -> None:
    tab.open("#/command/tokens")
    tab.see(
        """(() => {
            window.seen = {clicks: 0, frames: 0, longest: 0};
            new PerformanceObserver((list) => {
                for (const {duration} of list.getEntries()) seen.longest = Math.max(seen.longest, duration);
            }).observe({type: 'longtask'});
            const running = () => document.querySelector('.state').textContent.startsWith('Running');
            document.querySelector('#theme').addEventListener('click', () => { seen.clicks += running(); });
            const frame = () => { seen.frames += running(); requestAnimationFrame(frame); };
            frame();
        })()"""
    )
    tab.put("n", "10000")
    tab.press("Enter", CONTROL)
    tab.until_text(STATE, "Completed, 10000 items")
    due = "".join(f"token{n}{chr(10) if n % 40 == 39 else ' '}" for n in range(10_000)).split()
    tab.until_text(OUTPUT, "token9999")
    shown = tab.see("document.querySelector('.results .pane').innerText").split()
    assert shown == due
    found = tab.see("seen")
    assert found["frames"] > 0  # it was painted meanwhile; how often, is how long it took
    assert found["longest"] < 1000
    tab.put("n", "1000000")
    tab.press("Enter", CONTROL)
    tab.until("document.querySelector('.state').textContent.startsWith('Running')")
    tab.click("#theme")
    tab.until("seen.clicks === 1")
    tab.press("Escape")
    tab.until_text(STATE, "Cancelled")
