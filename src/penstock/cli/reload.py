"""`penstock run --reload`: the server again, whenever a file of the project changes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from penstock.cli.exits import Exit, fail


def reload_on_change(project: Path | None) -> None:
    """Run this same command without `--reload` in a process of its own, and start it anew at every change;
    returns after Ctrl-C."""
    if project is None:
        fail("--reload watches a project; name its folder", Exit.USAGE)
    try:
        import watchfiles
    except ModuleNotFoundError:
        fail("--reload needs watchfiles: pip install 'penstock[reload]'", Exit.USAGE)
    folder = project if project.is_dir() else project.parent
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    command = shlex.join([sys.executable, "-m", "penstock.cli", *arguments])
    print(f"penstock: watching {folder}", file=sys.stderr)
    watchfiles.run_process(folder, target=command, target_type="command")
