"""The shell command and the Python script that give the result on the screen, exactly.

Options with the default value of the command are left out, and so are settings with the default value of the method. Random
numbers depend on the content of the image file, in the command and in the script alike.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from faithmap.app.shelf import SAMPLES, Upload
from faithmap.app.work import Compared, Explained, Saturated
from faithmap.errors import one_line
from faithmap.methods import Explainer
from faithmap.methods.settings import settings_of as method_settings
from faithmap.model import Classifier
from faithmap.studies.settings import StudySettings

_LEFT_OUT = ("out", "overwrite", "device")
"""Settings that do not change the result."""


def command(name: str, upload: Upload, settings: StudySettings, **others: object) -> str:
    """A line for the shell, to be run in the folder of the image file.

    Args:
        name: of the command.
        upload: the image.
        settings: of the study.
        others: more options, such as ``out``.
    """
    defaults = type(settings)()
    given = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _LEFT_OUT}
    changed = {key: value for key, value in given.items() if value != getattr(defaults, key)}
    words = ["faithmap", name]
    for key, value in {**changed, **others}.items():
        for text in value if key == "set" else [_word(key, value)]:
            words += [f"--{key.replace('_', '-')}", text]
    return shlex.join(words[:2]) + _file(upload) + "".join(f" {shlex.quote(word)}" for word in words[2:])


def _word(key: str, value: object) -> str:
    if isinstance(value, (tuple, list)):
        return ("x" if key == "resolution" else ",").join(map(str, value))
    return str(value)


def _file(upload: Upload) -> str:
    """The image as an argument; the first sample photograph is the command's default."""
    if upload.sample == SAMPLES[0]:
        return ""
    if upload.sample is not None:
        return f' "$(python -c "import faithmap; print(faithmap.sample_photo({upload.sample!r}))")"'
    return f" {shlex.quote(upload.name)}"


def commands_of(result: Explained | Compared | Saturated) -> str:
    """The shell commands for a result, one line each."""
    upload = result.subject.upload
    if isinstance(result, Compared):
        return command("compare", upload, result.study.settings)
    if isinstance(result, Saturated):
        return command("saturation", upload, result.study.settings)
    if len(result.studies) == 1:
        return command("explain", upload, result.studies[0].settings)
    return "\n".join(
        command("explain", upload, study.settings, out=f"faithmap-class-{study.target}") for study in result.studies
    )


def python_of(result: Explained | Compared | Saturated) -> str:
    """A Python script for a result, to be run in the folder of the image file."""
    if isinstance(result, Explained):
        return _explain_script(result)
    return _compare_script(result) if isinstance(result, Compared) else _saturation_script(result)


def _head(upload: Upload, settings: StudySettings, imports: str = "") -> str:
    photo = f"Path({_code(upload.name)})" if upload.sample is None else f"fm.sample_photo({_code(upload.sample)})"
    path = "from pathlib import Path\n" if upload.sample is None else ""
    return f"""import hashlib
{path}
import faithmap as fm
{imports}
model = fm.load({_code(settings.model)})
photo = {photo}
image = model.read(photo)
number = int(hashlib.sha256(photo.read_bytes()).hexdigest()[:16], 16)


def generator():
    return fm.image_generators({settings.seed}, [number], model.device)

"""


def _explain_script(result: Explained) -> str:
    first, upload = result.studies[0], result.subject.upload
    imports = "" if len(result.studies) == 1 else "from faithmap.viz import scaled\n"
    text = _head(upload, first.settings, imports) + f"\nexplainer = {explainer_code(first.explainer)}\n"
    if len(result.studies) == 1:
        return (
            text
            + f"""explanation = explainer(image, {_target(first.target, first.model)}
curves = fm.deletion_insertion(model, image, explanation)
print("deletion", float(curves.deletion.area), "insertion", float(curves.insertion.area))
figure = fm.show(image, explanation, curves, photo=fm.read_image(photo), geometry=model.geometry, labels=model.labels)
figure.savefig("panel.png")
"""
        )
    this, that = (_target(study.target, study.model) for study in result.studies)
    return (
        text
        + f"""this = explainer(image, {this}
that = explainer(image, {that}
for explanation in (this, that):
    curves = fm.deletion_insertion(model, image, explanation)
    print("deletion", float(curves.deletion.area), "insertion", float(curves.insertion.area))
difference = scaled(this.heatmap) - scaled(that.heatmap)
"""
    )


def _target(target: int | None, model: Classifier) -> str:
    """The rest of a call from the class on, with the name of the class as a comment."""
    name = "" if target is None else f"  # {one_line(model.label(target))}"
    return f"{target}, generator=generator()){name}"


_SHARED_CELLS = "    cells = explanation.cells if explanation.resolution == {size} else explanation.at({size})"
_OWN_CELLS = """\
    size = own.get(name, {size})
    cells = explanation.cells if explanation.resolution == size else explanation.at(size)
    if explanation.resolution == own.get(name):
        cells = explanation.heatmap"""


def _compare_script(result: Compared) -> str:
    study = result.study
    own = {name: entry.resolution for name, entry in study.entries.items() if entry.resolution is not None}
    rows = "".join(f"    {_code(name)}: {size},\n" for name, size in own.items())
    sizes, ranked = (f"own = {{\n{rows}}}\n", _OWN_CELLS) if own else ("", _SHARED_CELLS)
    return (
        _head(result.subject.upload, study.settings)
        + f"""
explainers = {_table(study.explainers)}
{sizes}for name, explainer in explainers.items():
    explanation = explainer(image, {study.target}, generator=generator())
{ranked.format(size=study.shared_resolution)}
    curves = fm.deletion_insertion(model, image, cells, explanation.target)
    print(name, "deletion", float(curves.deletion.area), "insertion", float(curves.insertion.area))
"""
    )


def _saturation_script(result: Saturated) -> str:
    study = result.study
    settings = study.settings
    layer = "" if settings.target_layer is None else f", target_layer={_code(settings.target_layer)}"
    imports = "from faithmap.methods.cams import saturation, top_features\n"
    return (
        _head(result.subject.upload, settings, imports)
        + f"""
path = saturation(model, image, {study.target}{layer}, baseline={_code(settings.baseline)})
print("saturated", float(path.share()))
explainers = {_table(study.explainers)}
for name, explainer in explainers.items():
    explanation = explainer(image, {study.target}, generator=generator())
    top = top_features(model, image, explanation, {settings.channels})
    curves = fm.deletion_insertion(model, image, top)
    print(name, "deletion", float(curves.deletion.area), "insertion", float(curves.insertion.area))
"""
    )


def _table(explainers: Mapping[str, Explainer]) -> str:
    rows = "".join(f"    {_code(name)}: {explainer_code(explainer)},\n" for name, explainer in explainers.items())
    return f"{{\n{rows}}}"


def explainer_code(explainer: Explainer) -> str:
    """The call that makes an explainer like it around ``model``."""
    plain = type(explainer)(explainer.model)
    own = [f.name for f in fields(explainer) if f.init and f.name != "model"]
    changed = [name for name in own if getattr(explainer, name) != getattr(plain, name)]
    settings = "".join(f", {name}={_code(getattr(explainer, name))}" for name in changed)
    return f"fm.{type(explainer).__name__}(model{settings})"


def _code(value: Any) -> str:
    """A setting as Python writes it."""
    if isinstance(value, Explainer):
        return explainer_code(value)
    if is_dataclass(value) and not isinstance(value, type):
        defaults = {name: setting.default for name, setting in method_settings(type(value)).items()}
        changed = [name for name, default in defaults.items() if getattr(value, name) != default]
        return f"fm.{type(value).__name__}({', '.join(f'{name}={_code(getattr(value, name))}' for name in changed)})"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_code, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    text = repr(str(value) if isinstance(value, Path) else value)
    return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
