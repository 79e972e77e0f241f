"""Studies are run by the command line, as its users run them."""

from cli_tools import faith, loads, photo, sketches, tiny, tree

__all__ = ["faith", "loads", "photo", "sketches", "tiny", "tree"]
