"""``faithmap app``. Free of torch and Gradio, which take seconds to import: ``--help`` must not wait for them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter, Token
from cyclopts.types import NonNegativeInt

from faithmap.errors import TERMINATED, Terminated, UserError, user_errors

REQUIRED = ("gradio", "uvicorn", "fastapi")


def parse_names(_: Any, tokens: list[Token]) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(dict.fromkeys(name.strip() for name in tokens[0].value.split(",") if name.strip()))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AppArguments:
    """What the page offers, and its address.

    Args:
        run: folder of a benchmark to browse.
        models: names of the models that can be chosen, separated by commas; the first one is loaded at the start. By default
            all models whose weights are installed.
        port: port on this machine's own address, 127.0.0.1; 0 for any free port.
        public_url: address at which a reverse proxy serves the page, such as https://maps.example.org.
        device: where to compute, such as cuda; by default the CPU.
    """

    run: Path | None = None
    models: Annotated[tuple[str, ...], Parameter(converter=parse_names, n_tokens=1, negative="", metavar="NAMES")] = ()
    port: NonNegativeInt = 7860
    public_url: str | None = None
    device: str | None = None


_DEFAULTS = AppArguments()


def open_page(arguments: AppArguments = _DEFAULTS) -> int:
    """Open a web page on which photographs are explained, tested and compared.

    Only this machine can open the page: it is bound to 127.0.0.1, sends no request to any other host, and keeps photographs in
    memory. docs/app/team.md describes how a team uses one page behind a reverse proxy. Ctrl-C ends it.

    Args:
        arguments: what the page offers, and its address.
    """
    if any(find_spec(name) is None for name in REQUIRED):
        raise UserError("the page needs Gradio; pip install 'faithmap[app]'")
    from faithmap.app.start import start  # noqa: PLC0415 - torch and Gradio take seconds; --help must not

    try:
        with user_errors():
            start(_announce, **vars(arguments))
    except KeyboardInterrupt as end:  # the usual end of a server
        _exit(TERMINATED if isinstance(end, Terminated) else 0)
    return 0


def _announce(address: str) -> None:
    sys.stdout.write(f"faithmap is at {address} (Ctrl-C ends it)\n")
    sys.stdout.flush()


def _exit(code: int) -> NoReturn:
    """End the process at once. Python would wait for a running pass of the model, and unloading torch takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
