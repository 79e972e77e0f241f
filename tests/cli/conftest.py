"""Fixtures of the command line."""

from cli_tools import faith, loads, photo, sketches, tiny, tree

__all__ = ["faith", "loads", "photo", "sketches", "tiny", "tree"]
