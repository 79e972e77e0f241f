"""Pictures of explanations: overlay, panel, curves, strip, film, sanity. Nothing here imports pyplot or chooses a backend."""

from faithmap.viz.adversarial import adversarial_panel, insertion_curves
from faithmap.viz.animation import animation
from faithmap.viz.colours import colourise, flaw, limits, scaled
from faithmap.viz.comparison import compare
from faithmap.viz.curves import curves
from faithmap.viz.files import save_figure, save_image
from faithmap.viz.overlay import overlay, placed
from faithmap.viz.panel import show
from faithmap.viz.ranking import ranking
from faithmap.viz.sanity import sanity
from faithmap.viz.saturation import saturation_curves
from faithmap.viz.strip import strip

__all__ = [
    "adversarial_panel",
    "animation",
    "colourise",
    "compare",
    "curves",
    "flaw",
    "insertion_curves",
    "limits",
    "overlay",
    "placed",
    "ranking",
    "sanity",
    "saturation_curves",
    "save_figure",
    "save_image",
    "scaled",
    "show",
    "strip",
]
