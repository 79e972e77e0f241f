"""``faithmap methods``, and the explainer that the options of the command line stand for."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from faithmap.cli.errors import UserError
from faithmap.cli.report import make_console
from faithmap.methods.registry import METHODS

if TYPE_CHECKING:
    import faithmap as fm
    from faithmap.cli.explain import Options
    from faithmap.methods.masks.masker import Masker


def methods() -> int:
    """List the methods: what each does, what an image costs in passes of the model, and where it comes from."""
    console = make_console()
    rows = [("method", "passes an image", "needs", "source", "what it does")]
    for name, method in METHODS.items():
        also = f"; also {', '.join(method.also)}" if method.also else ""
        rows.append((name, method.passes, ", ".join(method.needs) or "scores", method.source, method.summary + also))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        console.print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def has_resolution(name: str) -> bool:
    """Whether a method's map can have any number of cells."""
    return any(field.name == "resolution" for field in fields(METHODS[name].explainer))


def make_explainer(model: fm.Classifier, options: Options) -> fm.Explainer:
    """The method with the settings that were given; all others are its own defaults.

    Raises:
        UserError: for a setting that the method does not have.
    """
    from faithmap.methods.cams import Expected, Integrated, Smooth  # noqa: PLC0415

    explainer = METHODS[options.method].explainer
    own = {field.name for field in fields(explainer)}
    names = ("resolution", "target_layer", "iterations", "samples", "masker", "baseline", "score")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    gradient = getattr(explainer(model), "gradient", None)
    if "samples" in settings and isinstance(gradient, (Smooth, Integrated, Expected)):
        settings["gradient"] = gradient = replace(gradient, samples=settings.pop("samples"))
    if "baseline" in settings and isinstance(gradient, (Integrated, Expected)):
        settings["gradient"] = gradient.starting_from(settings.pop("baseline"))
    for name, other in (("samples", "masks"), ("baseline", "references")):
        if name in settings and name not in own and other in own:
            settings[other] = settings.pop(name)
    for name in settings.keys() - own:
        raise UserError(f"--{name.replace('_', '-')} is no setting of {options.method}; leave it out")
    if "masker" in own:
        settings["masker"] = _masker(model, options)
    if "target_layer" in settings:
        settings["target_layer"] = [name.strip() for name in settings["target_layer"].split(",")]
    return explainer(model, chunk_size=options.chunk, seed=options.seed, **settings)


def _masker(model: fm.Classifier, options: Options) -> Masker:
    """The network that was trained for the model.

    Raises:
        ValueError: where none was given, or one that cannot be read or is for another model.
    """
    from faithmap.methods.masks.masker_files import read_masker  # noqa: PLC0415

    if options.masker is None:
        made = "'faithmap train-masker' makes one, and 'faithmap explain' takes it as --masker FILE"
        raise UserError(f"{options.method} needs a network that was trained for the model; {made}")
    return read_masker(options.masker, model)
