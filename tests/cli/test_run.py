"""`penstock run`: from the first line to the exit code."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import pytest

from cli.processes import Penstock, Serve, Server, started


def project(folder: Path, code: str, manifest: str = "name: broken\nentrypoint: run.py\n") -> Path:
    (folder / "manifest.yml").write_text(manifest)
    (folder / "run.py").write_text(code)
    return folder


def test_it_says_where_it_serves_what(server: Server) -> None:
    assert server.ready_line.startswith(f"tiny 1.2.3 ready on {server.url}")
    assert "predict" in server.ready_line
    assert "count" in server.ready_line
    assert httpx.get(f"{server.url}/health").json()["status"] == "healthy"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_told_to_stop_ends_clean(serve: Serve, number: signal.Signals) -> None:
    assert serve("--engine", "scripted:text=one").stop(number) == 0


def test_an_engine_needs_no_project(serve: Serve, penstock: Penstock) -> None:
    server = serve(PENSTOCK_ENGINE="scripted:text=Once upon a time")
    said = penstock("call", "predict", "prompt=Say", "--stream", "--url", server.url)
    assert (said.returncode, said.stdout) == (0, "Once upon a time\n")


def test_a_python_file_is_a_project(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text("from penstock import Runtime\nrt = Runtime()\nrt.command('one')(lambda: 1)\n")
    assert "one" in serve(file).ready_line


def test_a_flag_goes_before_the_environment(serve: Serve, tiny: Path) -> None:
    # The fixture passes --port 0; a server that heeded the environment could not listen here.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert serve(tiny, PENSTOCK_PORT=str(taken.getsockname()[1])).ready_line


def test_workers_are_asked_for_by_flag_or_environment(serve: Serve) -> None:
    for server in (
        serve("--engine", "scripted:text=one", "--workers", 2, PENSTOCK_WORKERS="1"),
        serve("--engine", "scripted:text=one", PENSTOCK_WORKERS="2"),
    ):
        checks = httpx.get(f"{server.url}/readyz").json()["checks"]
        assert checks == {"worker 1": "running", "worker 2": "running"}


@pytest.mark.parametrize("as_flag", [True, False])
def test_a_taken_port_is_named_with_a_way_out(penstock: Penstock, tiny: Path, as_flag: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = (
            penstock("run", tiny, "--port", port) if as_flag else penstock("run", tiny, PENSTOCK_PORT=port)
        )
    assert ended.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use)" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_that_was_not_pulled_is_named_with_the_command(penstock: Penstock, tmp_path: Path) -> None:
    ended = penstock("run", "--engine", "smollm2-135m", "--port", 0, PENSTOCK_CACHE=str(tmp_path))
    assert ended.returncode == 1
    assert "penstock pull smollm2-135m" in ended.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nosuchpackage.part\n", ["run.py", "line 1", "No module named 'nosuchpackage'", "Install"]),
        (
            "def f():\n    return 1 / 0\nf()\n",
            ["line 3", "line 2", "f()", "ZeroDivisionError", "start again"],
        ),
        ("rt = (1\n", ["run.py", "line 1", "SyntaxError"]),
        ("import sys\nsys.exit(0)\n", ["line 2", "sys.exit(0)"]),
        ("x = 1\n", ["makes no Runtime", "rt = Runtime("]),
    ],
)
def test_an_error_in_the_authors_file_is_shown_at_its_line(
    penstock: Penstock, tmp_path: Path, code: str, said: list[str]
) -> None:
    ended = penstock("run", project(tmp_path, code), "--port", 0)
    assert ended.returncode == 1
    assert [word for word in said if word not in ended.stderr] == []
    assert "importlib" not in ended.stderr
    assert ended.stdout == ""


def test_a_project_whose_start_fails_never_ends_clean(penstock: Penstock, tmp_path: Path) -> None:
    code = (
        "from penstock import Runtime\nrt = Runtime('manifest.yml')\n"
        "@rt.command('initialize')\ndef initialize():\n    raise SystemExit(0)\n"
    )
    manifest = "name: broken\nentrypoint: run.py\nstartup: [initialize]\n"
    ended = penstock("run", project(tmp_path, code, manifest), "--port", 0)
    assert ended.returncode == 1
    assert "initialize" in ended.stderr


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("entrypoint: run.py\n", "name"),
        ("name: Bad Name\n", "name"),
        ("name: [\n", "manifest.yml"),
        ("name: tiny\n", "entrypoint"),
        ("name: tiny\nentrypoint: other.py\n", "other.py"),
    ],
)
def test_a_mistake_in_the_manifest_is_named(
    penstock: Penstock, tmp_path: Path, manifest: str, said: str
) -> None:
    ended = penstock("run", project(tmp_path, "", manifest), "--port", 0)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "manifest.yml" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ((), {}, "--engine"),
        (("/nosuchfolder",), {}, "does not exist"),
        (("--engine", "scripted", "--port", "70000"), {}, "port"),
        (("--engine", "scripted"), {"PENSTOCK_PORT": "many"}, "PENSTOCK_PORT"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    penstock: Penstock, arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    ended = penstock("run", *arguments, **env)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_server_stopped_before_it_was_ready_was_interrupted(tmp_path: Path) -> None:
    code = (
        "import asyncio\nfrom penstock import Runtime\nrt = Runtime('manifest.yml')\n"
        "@rt.command('initialize')\nasync def initialize():\n"
        "    print('initialising', flush=True)\n    await asyncio.Event().wait()\n"
    )
    manifest = "name: slow\nentrypoint: run.py\nstartup: [initialize]\n"
    with started("run", project(tmp_path, code, manifest), "--port", 0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "initialising\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "before it was ready" in said
