"""``faithmap app``: the page on this machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter, Token
from cyclopts.types import NonNegativeInt

from faithmap.cli.errors import TERMINATED, UserError, blaming_the_user
from faithmap.cli.report import make_console
from faithmap.cli.signals import Terminated

NEEDED = ("gradio", "uvicorn", "fastapi")


def as_names(_: Any, tokens: list[Token]) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(dict.fromkeys(name.strip() for name in tokens[0].value.split(",") if name.strip()))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """What the page offers, and where.

    Args:
        run: a benchmark's folder to browse.
        models: that can be chosen, by name, with commas between them, the first one loaded at once; without it, those whose
            weights are installed.
        port: on this machine's own address, 127.0.0.1; 0 takes any that is free.
        public_url: the address under which a reverse proxy shows the page, such as https://maps.example.org.
        device: where to compute, such as cuda; without it, the CPU.
    """

    run: Path | None = None
    models: Annotated[tuple[str, ...], Parameter(converter=as_names, n_tokens=1, negative="", metavar="NAMES")] = ()
    port: NonNegativeInt = 7860
    public_url: str | None = None
    device: str | None = None


_DEFAULTS = AppOptions()


def app(options: AppOptions = _DEFAULTS) -> int:
    """Open a page on which photographs are explained, doubted and compared.

    The page is for this machine alone: it is bound to 127.0.0.1, asks no other host for anything, and keeps photographs in
    memory. docs/app/team.md says how a team shares one behind a reverse proxy. Ctrl-C ends it.

    Args:
        options: what the page offers, and where.
    """
    from importlib.util import find_spec  # noqa: PLC0415

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError("the page needs Gradio; pip install 'faithmap[app]'")
    from faithmap.app.start import start  # noqa: PLC0415 - torch and Gradio take seconds; --help must not

    console = make_console()
    try:
        with blaming_the_user():
            start(options, lambda address: console.print(f"faithmap is at {address} (Ctrl-C ends it)"))
    except KeyboardInterrupt as end:  # how a server ends
        _leave(TERMINATED if isinstance(end, Terminated) else 0)
    return 0


def _leave(code: int) -> NoReturn:
    """At once: all is in order, and Python would wait for a pass of the model, and take seconds to put torch away."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
