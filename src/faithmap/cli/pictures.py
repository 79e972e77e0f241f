"""The pictures of one result."""

from __future__ import annotations

from pathlib import Path

from faithmap.cli.explain import Options
from faithmap.cli.record import Findings
from faithmap.model import Classifier
from faithmap.viz import animation, flaw, overlay, placed, save_figure, save_image, show, strip


def draw(folder: Path, found: Findings, model: Classifier, options: Options) -> None:
    """Draw all pictures into a folder; of a heatmap that ranks nothing only the panel, which says so.

    Args:
        folder: to draw into.
        found: about one image.
        model: that was explained.
        options: of which the animation's format is one.
    """
    image, why, proof = found.photo.image, found.why, found.proof
    photo = found.photo.decode()
    panel = show(image, why, proof, photo=photo, geometry=model.geometry, reference=found.chance, labels=model.labels)
    save_figure(panel, folder / "panel.png")
    if flaw(why.heatmap) is not None:
        return
    save_image(overlay(photo, placed(why, photo, model.geometry).cpu()), folder / "overlay.png")
    save_figure(strip(model, image, why, chunk_size=options.chunk), folder / "strip.png")
    if options.animation is not None:
        animation(image, why, None, proof, folder / f"deletion_insertion.{options.animation}")
