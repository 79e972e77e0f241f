"""The versions of what a result depends on, for the record of a result."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from faithmap._version import __version__


def dependency_versions() -> dict[str, str | None]:
    """The versions of faithmap, Python, torch and timm; None for a package that is not installed.

    >>> list(dependency_versions())
    ['faithmap', 'python', 'torch', 'timm']
    """
    packages = {name: _package_version(name) for name in ("torch", "timm")}
    return {"faithmap": __version__, "python": sys.version.split()[0], **packages}


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
