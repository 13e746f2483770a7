"""`penstock runners`: the runners of a gateway, listed, drained and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from penstock.cli.call import DEFAULT_URL
from penstock.cli.exits import Exit, fail
from penstock.cli.trust import Ca, trusting

Url = Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="The gateway.")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="PENSTOCK_API_KEY", help="A key of the scope admin, where one is needed.")
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Name = Annotated[str, typer.Argument(help="The runner's name.")]
Undo = Annotated[bool, typer.Option("--undo", help="Give it calls again.")]
Share = Annotated[float, typer.Argument(help="1 is the usual share of the calls, 0 is none.")]

runners = typer.Typer(help="The runners of a gateway.", no_args_is_help=True, rich_markup_mode=None)


@runners.command("list")
def list_(url: Url = DEFAULT_URL, api_key: ApiKey = None, ca: Ca = None, as_json: Json = False) -> None:
    """Show the runners that are there, or may come back."""
    found = _ask("GET", Gateway(url, api_key, ca), "")["runners"]
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for runner in found:
        print(_line(runner))
    if not found:
        print("no runner is connected")


@runners.command()
def drain(
    name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca: Ca = None, undo: Undo = False
) -> None:
    """Give a runner no more calls; those it has go on."""
    print(_line(_ask("DELETE" if undo else "POST", Gateway(url, api_key, ca), f"/{_spelt(name)}/drain")))


@runners.command()
def weigh(name: Name, weight: Share, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca: Ca = None) -> None:
    """Give a runner another share of the calls."""
    print(_line(_ask("POST", Gateway(url, api_key, ca), f"/{_spelt(name)}/weight", {"weight": weight})))


@runners.command()
def remove(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca: Ca = None) -> None:
    """Send a runner away for good; its calls fail, or run elsewhere."""
    print(_line(_ask("DELETE", Gateway(url, api_key, ca), f"/{_spelt(name)}")))


class Gateway(NamedTuple):
    """Whom to ask."""

    url: str
    api_key: str | None
    ca: Path | None


def _ask(method: str, gateway: Gateway, path: str, body: object = None) -> Any:
    import httpx

    url = gateway.url
    headers = {} if gateway.api_key is None else {"authorization": f"Bearer {gateway.api_key}"}
    try:
        reply = httpx.request(
            method,
            f"{url.rstrip('/')}/v2/runners{path}",
            json=body,
            headers=headers,
            timeout=30,
            verify=trusting(gateway.ca) or True,
        )
    except httpx.InvalidURL as error:
        fail(f"{url} is no URL: {error}", Exit.USAGE)
    except httpx.HTTPError as error:
        fail(f"no gateway answers at {url} ({error})", Exit.NO_SERVER)
    try:
        answer = reply.json()
    except ValueError:
        fail(f"{url} answered HTTP {reply.status_code} and no JSON: is it a gateway that serves there?")
    if reply.status_code != 200:
        fail(f"{answer.get('error')} ({answer.get('code')})")
    return answer


def _line(runner: Any) -> str:
    labels = " ".join(f"{name}={value}" for name, value in runner["labels"].items())
    weight = "" if runner["weight"] == 1 else f" · weight {runner['weight']:g}"
    commands = ", ".join(runner["commands"])
    return f"{runner['name']} · {runner['status']}{weight} · {commands}{f' · {labels}' if labels else ''}"


def _spelt(name: str) -> str:
    return quote(name, safe="")
