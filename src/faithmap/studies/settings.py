"""The settings of every study.

Free of torch: the command line reads these fields, defaults and descriptions before anything else is imported. The description
of a setting is also its help text there. Annotations are not postponed: cyclopts would look up their names in the module of
the command.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

BaselineName: TypeAlias = Literal["blur", "strong_blur", "median_blur", "black", "grey", "white", "mean", "noise", "zero"]
"""A name in ``faithmap.baselines.BASELINES``, or "zero", the pixel value that the model normalises to 0."""

Outputs: TypeAlias = Literal["logits", "probabilities", "sigmoid"]
"""``faithmap.score.OutputKind``."""

Resolution: TypeAlias = int | tuple[int, int]
"""Cells per side, or rows and columns."""


MapPart: TypeAlias = Literal["overlay", "cells", "curves"]
"""What a comparison draws of a method: its map over the image, the cells of the map, its deletion and insertion curves."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Which class of which model is studied, where results are written, and how they are computed.

    Args:
        target: the class to explain, by name ("tiger cat") or number; by default the class that the model predicts.
        model: name of the model; "faithmap models" lists the names.
        weights: a checkpoint file for the model, in place of the weights that belong to its name.
        outputs: what the model returns for its classes: logits of a softmax; probabilities; or sigmoid, logits with a sigmoid
            for each class, as of a model with several labels or a single logit. By default what its configuration says.
        out: folder for the results. Each image gets a folder in it, named after the image file.
        overwrite: replace existing results. The old ones stay until the new ones are complete.
        seed: seed of all random numbers.
        device: where to compute, such as cuda; by default the CPU.
        chunk: maximum number of images in one pass of the model; fewer need less memory.
        set: any other setting of the methods, such as lambda1=0.5, or igos.lambda1=0.5 for one method; may be given
            several times. "faithmap methods NAME" lists the settings of a method.
    """

    target: str | None = None
    model: str = "efficientnet_lite0"
    weights: Path | None = None
    outputs: Outputs | None = None
    out: Path = Path("faithmap-results")
    overwrite: bool = False
    seed: int = 0
    device: str | None = None
    chunk: int = 32
    set: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExplainSettings(StudySettings):
    """How to explain.

    Args:
        method: name of the method; "faithmap methods" lists the methods and their costs.
        out: folder for the results. Each image gets a folder in it, named after the image file. If two files have the same
            name, the first eight digits of the SHA-256 of their path are appended.
        resolution: cells of the heatmap per side (28), or rows and columns (14x20), for methods that optimise a mask. Class
            activation maps have the resolution of their layer, other methods that of the image.
        preset: the settings of the method's paper, for methods that have them ("faithmap methods NAME" tells); other options
            replace single ones.
        target_layer: target layer of a class activation map, by its dotted name; several names separated by commas. By
            default the last layer with a spatial output. For excitation backprop one name, or "input"; by default a layer
            of the second coarsest resolution.
        iterations: maximum number of iterations (mask methods).
        samples: passes of the smooth, integrated and expected maps, and of lime and similar methods; number of masks of
            rise, whose default is 4000, for a ResNet 8000.
        masker: for learned_mask, a file that "faithmap train-masker" wrote for this model.
        baseline: what the method replaces removed pixels with, or where its paths start.
        score: what the method explains about the class. The default of igos, mask and expected_fusedcam is the probability,
            that of the other class activation maps the logit.
        protocol: protocol for deletion and insertion.
        evidence: the jury that the verdict comes from, by measures that the method did not optimise: quick takes about 200
            forward passes, full about 1200; none for no verdict.
        ratios: shares of the cells that are deleted and inserted in the pictures of strip.png, separated by commas, such as
            0.05,0.1.
        animation: format of the animation of deletion and insertion.
        seed: seed of all random numbers. The random numbers of an image depend only on this seed and on the content of its
            file, not on its name, the other images or their order.
    """

    method: str = "rank_descent"
    preset: Literal["paper"] | None = None
    resolution: Resolution | None = None
    target_layer: str | None = None
    iterations: int | None = None
    samples: int | None = None
    masker: Path | None = None
    baseline: BaselineName | None = None
    score: Literal["probability", "logit"] | None = None
    protocol: Literal["igos", "igos_resampled", "rise"] = "igos"
    evidence: Literal["quick", "full", "none"] = "quick"
    ratios: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    animation: Literal["gif", "webp"] | None = "gif"


@dataclass(frozen=True, kw_only=True)
class CompareSettings(StudySettings):
    """Which methods to compare, and how.

    Args:
        methods: names separated by commas; "faithmap methods" lists the methods and their costs. A method can be given
            several times: igos@112 has a resolution of its own, igos:noise_std=0:lambda1=2 settings of its own, and
            igos@112:noise_std=0 both.
        overwrite: replace existing comparisons. The old ones stay until the new ones are complete.
        resolution: cells per side at which deletion and insertion are evaluated for every map without a resolution of its
            own, and of the maps whose resolution is a setting.
        parts: what is drawn of each method, separated by commas: overlay, the map over the image; cells, the map's own cells;
            curves, its deletion and insertion curves beside those of a random map.
    """

    methods: tuple[str, ...] = ("rank_descent", "igos", "expected_fusedcam", "gradcam")
    out: Path = Path("faithmap-comparison")
    resolution: int = 28
    parts: tuple[MapPart, ...] = ("overlay", "curves")


@dataclass(frozen=True, kw_only=True)
class SaturationSettings(StudySettings):
    """What to measure, and how.

    Args:
        methods: class activation maps whose most important channels are compared; names separated by commas.
        target_layer: dotted name of the layer; by default the last layer with a spatial output.
        baseline: where the path to the image starts.
        channels: number of most important channels per method.
        target: the class, by name ("tiger cat") or number; by default the class that the model predicts.
    """

    methods: tuple[str, ...] = ("gradcam", "integrated_gradcam", "expected_gradcam")
    target_layer: str | None = None
    baseline: BaselineName = "blur"
    channels: int = 4
    out: Path = Path("faithmap-saturation")


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(StudySettings):
    """How to attack, and how to explain.

    Args:
        method: name of the method for both maps; "faithmap methods" lists the methods and their costs.
        target: the class that the attack aims for, by name ("tiger cat") or number; by default any class other than the
            predicted one.
        radius: maximum change of a pixel, where black is 0 and white is 1; by default 16/255, sixteen levels
            of 8 bits, as in the paper of the attack.
        steps: maximum number of steps of the attack.
        early_stop: stop as soon as the model predicts another class. The paper's attack does not: it takes all steps.
        share: share of the full image's probability that inserted cells have to reach.
        resolution: cells of the maps per side (28), or rows and columns (14x20), for igos and mask; class activation maps have
            the resolution of their layer.
        seed: seed of all random numbers. Both maps of an image use the same ones.
    """

    method: str = "igos"
    radius: float = 16 / 255
    steps: int = 10
    early_stop: bool = False
    share: float = 0.5
    out: Path = Path("faithmap-adversarial")
    resolution: Resolution | None = None


@dataclass(frozen=True, kw_only=True)
class ChooseSettings(StudySettings):
    """Which methods to rank, and how.

    Args:
        budget: time for everything, such as 90s, 2m or 1h; by default 2m. Methods that would exceed it are left out and
            listed with their estimated time.
        methods: names separated by commas; by default all. Controls are always included.
        score: what the methods are ranked by: a jury of removals that none of them optimised; or areas under the deletion
            curve and the insertion curve, which some of them optimise.
        masker: for learned_mask, a file that "faithmap train-masker" wrote for this model; without it learned_mask is left
            out.
        out: folder for the result.
        overwrite: replace an existing result. The old one stays until the new one is complete.
        resolution: cells per side at which deletion and insertion are evaluated for every map, and of the maps whose
            resolution is a setting.
    """

    budget: float = 120.0
    methods: tuple[str, ...] | None = None
    score: Literal["jury", "insertion_minus_deletion", "insertion", "deletion"] = "jury"
    masker: Path | None = None
    out: Path = Path("faithmap-choice")
    resolution: int = 28


@dataclass(frozen=True, kw_only=True)
class TrainMaskerSettings:
    """How to train a masker.

    Args:
        out: file for the masker, safetensors. Whenever the file exists, it is complete.
        steps: total number of training steps, including those of a training that is resumed.
        batch: images per step.
        learning_rate: of Adam.
        area: weight of the penalty on a mask's area; a larger weight gives smaller masks.
        channels: channels of the network's finest level, a multiple of 4.
        every: number of steps between two writes of the file.
        resume: resume the training in the file, up to --steps, with the same images and settings.
        overwrite: replace the masker in the file.
        model: name of the model; "faithmap models" lists the names.
        weights: a checkpoint file for the model, in place of the weights that belong to its name.
        outputs: what the model returns for its classes: logits, probabilities, or sigmoid for several labels. By default what
            its configuration says.
        seed: seed of all random numbers.
        device: where to compute, such as cuda; by default the CPU.
    """

    out: Path = Path("masker.safetensors")
    steps: int = 2000
    batch: int = 8
    learning_rate: float = 1e-3
    area: float = 3.0
    channels: int = 16
    every: int = 100
    resume: bool = False
    overwrite: bool = False
    model: str = "efficientnet_lite0"
    weights: Path | None = None
    outputs: Outputs | None = None
    seed: int = 0
    device: str | None = None
