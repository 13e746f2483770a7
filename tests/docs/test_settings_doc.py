"""docs/settings.md has every setting, variable, flag and exit code, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

import penstock
from docs.pages import DOCS, codes, table
from penstock.cli import app
from penstock.cli.exits import Exit
from penstock.server.settings import ServerSettings

PAGE = DOCS / "settings.md"
SETTINGS = ServerSettings.model_fields
VERBS = typer.main.get_group(app).commands
SOURCES = Path(penstock.__file__).parent.rglob("*.py")
READ = re.compile(r'(?:environ\.get\(|environ\[|getenv\(|envvar=)"(\w+)"')

READ_ANY = re.compile(r"envvar=\[([^\]]+)\]")  # the first of them that is set


def test_every_setting_of_the_server_has_its_row() -> None:
    rows = table(PAGE, "variable", "flag")
    assert sorted(codes(row["variable"])[0] for row in rows) == sorted(
        f"PENSTOCK_{name.upper()}" for name in SETTINGS
    )


def test_the_defaults_are_those_in_force() -> None:
    for row in table(PAGE, "variable", "flag"):
        name = codes(row["variable"])[0].removeprefix("PENSTOCK_").lower()
        if name not in ("ws_port", "workers"):  # their defaults depend on the port, and on the manifest
            assert codes(row["default"]) == [str(SETTINGS[name].default)], name


def test_the_flags_of_the_server_are_those_of_run() -> None:
    shown = [flag for row in table(PAGE, "variable", "flag") for flag in codes(row["flag"])]
    names = {flag: flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in _flags("run")}
    due = {flag for flag, name in names.items() if name in SETTINGS}
    assert set(shown) == due


def test_every_variable_that_is_read_has_its_row() -> None:
    shown = {name for row in table(PAGE, "variable", "read by") for name in codes(row["variable"])}
    also = {name for row in table(PAGE, "variable", "read by") for name in codes(row["meaning"])}
    sources = [path.read_text(encoding="utf-8") for path in SOURCES]
    read = {name for text in sources for name in READ.findall(text)}
    read |= {name for text in sources for some in READ_ANY.findall(text) for name in re.findall(r"\w+", some)}
    assert read <= shown | also
    assert shown - read <= {"SPI_STREAMING_ENV_VAR", "OMP_WAIT_POLICY"}


def test_every_verb_has_its_row_with_its_flags_and_arguments() -> None:
    rows = {codes(row["verb"])[0]: row for row in table(PAGE, "verb", "flags")}
    assert rows.keys() == VERBS.keys()
    for verb, row in rows.items():
        assert set(codes(row["flags"])) == _flags(verb), verb
        assert codes(row["verb"])[1:] == _arguments(verb), verb


def _flags(verb: str) -> set[str]:
    options = [p for p in VERBS[verb].params if p.param_type_name == "option"]
    flags = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    return {flag for flag in flags if flag.startswith("--")} - {"--help"}


def _arguments(verb: str) -> list[str]:
    arguments = [p for p in VERBS[verb].params if p.param_type_name == "argument"]
    return [(argument.name or "").upper() for argument in arguments]


def test_every_exit_code_has_its_row() -> None:
    rows = [(int(codes(row["code"])[0]), row["name"]) for row in table(PAGE, "code", "name")]
    assert rows == [(code.value, code.name.lower().replace("_", " ")) for code in Exit]
