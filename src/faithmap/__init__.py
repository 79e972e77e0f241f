"""Heatmaps that show which pixels the decision of an image model depends on, with evidence.

The public names stand in ``__init__.pyi``. Each is imported when it is first used: the core needs torch alone, and the command
line starts without it.

>>> import faithmap
>>> faithmap.IGOS.__name__
'IGOS'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
