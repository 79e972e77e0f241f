"""The command line and the Python for what is on the screen, exactly.

Options that are a command's defaults are left out; so are settings that are a method's own. Random numbers follow from the
photograph's content, in the command and in the Python alike.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import faithmap as fm
from faithmap.app.shelf import SAMPLES, Upload
from faithmap.app.work import Compared, Explained, Walked
from faithmap.cli.compare import CompareOptions
from faithmap.cli.comparison import Contest
from faithmap.cli.explain import Options
from faithmap.cli.saturation import SaturationOptions
from faithmap.cli.walks import Walks
from faithmap.text import one_line

_LATER = ("out", "overwrite", "json", "device")
"""Options that do not change what comes out."""


def command(name: str, upload: Upload, options: Options | CompareOptions | SaturationOptions, **others: object) -> str:
    """A line for the shell, to be run where the photograph lies.

    Args:
        name: of the command.
        upload: the photograph.
        options: what it was asked with.
        others: more options, such as ``out``.
    """
    defaults = type(options)()
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _LATER}
    changed = {key: value for key, value in given.items() if value != getattr(defaults, key)}
    words = ["faithmap", name]
    for key, value in {**changed, **others}.items():
        words += [f"--{key.replace('_', '-')}", _word(key, value)]
    return shlex.join(words[:2]) + _file(upload) + "".join(f" {shlex.quote(word)}" for word in words[2:])


def _word(key: str, value: object) -> str:
    if isinstance(value, (tuple, list)):
        return ("x" if key == "resolution" else ",").join(map(str, value))
    return str(value)


def _file(upload: Upload) -> str:
    """The photograph as an argument; none stands for the first bundled one."""
    if upload.sample == SAMPLES[0]:
        return ""
    if upload.sample is not None:
        return f' "$(python -c "import faithmap; print(faithmap.sample_photo({upload.sample!r}))")"'
    return f" {shlex.quote(upload.name)}"


def commands_of(result: Explained | Compared | Walked) -> str:
    """The lines for a result."""
    if isinstance(result, Compared):
        return command("compare", result.asked.upload, result.options)
    if isinstance(result, Walked):
        return command("saturation", result.asked.upload, result.options)
    if len(result.asked) == 1:
        return command("explain", result.asked[0].upload, result.asked[0].options)
    outs = (f"faithmap-class-{one.options.target}" for one in result.asked)
    return "\n".join(command("explain", one.upload, one.options, out=out) for one, out in zip(result.asked, outs, strict=True))


def python_of(result: Explained | Compared | Walked) -> str:
    """A script for a result; runs where the photograph lies."""
    if isinstance(result, Explained):
        return _explained(result)
    return _compared(result) if isinstance(result, Compared) else _walked(result)


def _head(upload: Upload, options: Options | CompareOptions | SaturationOptions, more: str = "") -> str:
    photo = f"Path({_code(upload.name)})" if upload.sample is None else f"fm.sample_photo({_code(upload.sample)})"
    path = "from pathlib import Path\n" if upload.sample is None else ""
    return f"""import hashlib
{path}
import faithmap as fm
{more}
model = fm.load({_code(options.model)})
photo = {photo}
image = model.read(photo)
number = int(hashlib.sha256(photo.read_bytes()).hexdigest()[:16], 16)


def generator():
    return fm.image_generators({options.seed}, [number], model.device)

"""


def _explained(result: Explained) -> str:
    first = result.asked[0]
    more = "" if len(result.asked) == 1 else "from faithmap.viz import scaled\n"
    text = _head(first.upload, first.options, more) + f"\nexplainer = {explainer_code(first.session().explainer)}\n"
    if len(result.asked) == 1:
        return (
            text
            + f"""why = explainer(image, {_target(first.options, first.model)}
proof = fm.deletion_insertion(model, image, why)
print("deletion", float(proof.deletion.area), "insertion", float(proof.insertion.area))
figure = fm.show(image, why, proof, photo=fm.read_image(photo), geometry=model.geometry, labels=model.labels)
figure.savefig("panel.png")
"""
        )
    this, that = (_target(one.options, one.model) for one in result.asked)
    return (
        text
        + f"""this = explainer(image, {this}
that = explainer(image, {that}
for why in (this, that):
    proof = fm.deletion_insertion(model, image, why)
    print("deletion", float(proof.deletion.area), "insertion", float(proof.insertion.area))
difference = scaled(this.heatmap) - scaled(that.heatmap)
"""
    )


def _target(options: Options, model: fm.Classifier) -> str:
    """The rest of a call from the class on, its name behind it."""
    name = "" if options.target is None else f"  # {one_line(model.label(int(options.target)))}"
    return f"{options.target}, generator=generator()){name}"


def _compared(result: Compared) -> str:
    options, side = result.options, result.options.resolution
    made = Contest.around(options, result.asked.model, None).explainers
    return (
        _head(result.asked.upload, options)
        + f"""
explainers = {_table(made)}
for name, explainer in explainers.items():
    why = explainer(image, {options.target}, generator=generator())
    cells = why.cells if why.resolution == ({side}, {side}) else why.at(({side}, {side}))
    proof = fm.deletion_insertion(model, image, cells, why.target)
    print(name, "deletion", float(proof.deletion.area), "insertion", float(proof.insertion.area))
"""
    )


def _walked(result: Walked) -> str:
    options = result.options
    made = Walks.around(options, result.asked.model, None).explainers
    layer = "" if options.target_layer is None else f", target_layer={_code(options.target_layer)}"
    head = _head(result.asked.upload, options, "from faithmap.methods.cams import saturation, top_features\n")
    return (
        head
        + f"""
walk = saturation(model, image, {options.target}{layer}, baseline={_code(options.baseline)})
print("saturated", float(walk.share()))
explainers = {_table(made)}
for name, explainer in explainers.items():
    why = explainer(image, {options.target}, generator=generator())
    top = top_features(model, image, why, {options.channels})
    proof = fm.deletion_insertion(model, image, top)
    print(name, "deletion", float(proof.deletion.area), "insertion", float(proof.insertion.area))
"""
    )


def _table(explainers: Mapping[str, fm.Explainer]) -> str:
    rows = "".join(f"    {_code(name)}: {explainer_code(explainer)},\n" for name, explainer in explainers.items())
    return f"{{\n{rows}}}"


def explainer_code(explainer: fm.Explainer) -> str:
    """The call that makes an explainer like it around ``model``."""
    plain = type(explainer)(explainer.model)
    own = [f.name for f in fields(explainer) if f.init and f.name != "model"]
    changed = [name for name in own if getattr(explainer, name) != getattr(plain, name)]
    settings = "".join(f", {name}={_code(getattr(explainer, name))}" for name in changed)
    return f"fm.{type(explainer).__name__}(model{settings})"


def _code(value: Any) -> str:
    """A setting as Python writes it."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = type(value)()
        changed = [f.name for f in fields(value) if f.init and getattr(value, f.name) != getattr(plain, f.name)]
        return f"fm.{type(value).__name__}({', '.join(f'{name}={_code(getattr(value, name))}' for name in changed)})"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_code, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    text = repr(str(value) if isinstance(value, Path) else value)
    return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
