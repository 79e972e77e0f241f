"""The house: what is public, how long a function is, what an import costs.

Which way imports go is checked by import-linter, with the contracts of pyproject.toml.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import faithmap
from faithmap.methods.registry import METHODS

SOURCE = Path(faithmap.__file__).parent
PUBLIC = """
CentredGaussian Edges RandomMap ContrastiveExcitationBackprop ExcitationBackprop ExpectedGradients
Gradient GradientTimesInput IntegratedGradients SmoothGrad VarGrad
ExtremalPerturbation IGOSPlus IGOSPlusPlus Occlusion RISE
CAM AblationCAM EigenCAM EvenBlurs Expected ExpectedFusedCAM ExpectedGradCAM FusedCAM GradCAM
GradCAMPlusPlus HiResCAM ImageSet Integrated IntegratedGradCAM LayerCAM Mixture Plain RandomBlurs RandomConstants RandomNoise
ScoreCAM Smooth SmoothGradCAM SmoothGradCAMPlusPlus TokenGrid XGradCAM channels_first
BinaryTarget DetectionTarget ImageTarget MultiLabelTarget RegressionTarget SegmentationTarget
BASELINES BaselineWarning Blur Classifier CompletenessWarning Constant Curve DeletionInsertion
EmptyHeatmapWarning Explainer Explanation TargetLayerWarning
FaithmapWarning Geometry IGOS ImageError LineSearch LowConfidenceWarning Mask Mean MedianBlur ModelError Noise Protocol
DeconvNet DeepLIFT GradientSHAP GuidedBackprop KernelSHAP LIME LRP LearnedMask Masker Nesterov RankDescent
Distribution Estimator FixedStep GradientExplainer ImageChunk LayerExplainer MaskOptimiser Objective Passes RawHeatmap
OutputsWarning Regulariser Request Samples StepResult StepRule Trace
JuryResult Shuffled Verdict
__version__ deletion_insertion evidence image_files image_generators load read_image sample_photo show
"""

PUBLIC_NAMES: list[str] = sorted(getattr(faithmap, "__all__"))  # noqa: B009  (made by lazy_loader)


def test_the_public_names_are_the_documented_list() -> None:
    assert sorted(PUBLIC.split()) == PUBLIC_NAMES
    assert all(getattr(faithmap, name) is not None for name in PUBLIC_NAMES)


def test_every_method_is_public() -> None:
    assert {method.explainer.__name__ for method in METHODS.values()} <= set(PUBLIC_NAMES)


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    whole = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return whole - ((first.end_lineno or 0) - first.lineno + 1 if documented else 0)


def test_functions_have_at_most_50_lines() -> None:
    long = [
        f"{path.relative_to(SOURCE)}: {node.name} has {lines(node)} lines"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines(node) > 50
    ]
    assert not long


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries are loaded when the code has run."""
    heavy = "{'torch', 'matplotlib', 'timm', 'torchvision', 'PIL', 'rich', 'cyclopts', 'numpy', 'torchmetrics'}"
    report = f"{code}; import sys; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import faithmap") == set()


def test_the_core_needs_torch_alone() -> None:
    core = "from faithmap import IGOS, Mask, Classifier, Explanation, deletion_insertion, Blur, image_generators"
    assert loaded_after(core) <= {"torch", "numpy"}, "torch loads numpy where it finds it"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(faithmap, "gradcam")


def test_a_class_name_has_one_meaning() -> None:
    """No two classes of the library have the same name, with or without a leading underscore."""
    places: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert not {name: lines for name, lines in places.items() if len(lines) > 1}


def is_set(node: ast.expr) -> bool:
    """Whether an expression is a set, or made of sets by operators."""
    if isinstance(node, ast.BinOp):
        return is_set(node.left) or is_set(node.right)
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    return called or isinstance(node, (ast.Set, ast.SetComp))


def test_no_test_is_parametrised_by_a_set() -> None:
    """The order of a set differs between processes, and pytest-xdist needs the same order in all of them."""
    unsorted = [
        f"{path.name}: {node.lineno}"
        for path in sorted(Path(__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize"
        for values in node.args[1:2]
        for part in (values, *(item.value for item in getattr(values, "elts", ()) if isinstance(item, ast.Starred)))
        if is_set(part)
    ]
    assert not unsorted, "give sorted(...)"
