"""Adversarial check: attack an image, explain both images, and compare the maps and the share of cells that insertion needs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from faithmap.baselines import describe_baseline
from faithmap.errors import user_errors
from faithmap.methods import Explainer
from faithmap.metrics.functional import AdversarialCheck, Curve, adversarial_check
from faithmap.model import Classifier
from faithmap.seeds import image_generators
from faithmap.studies.base import InputImage, Study, make_explainer
from faithmap.studies.result_folder import StudyProgress
from faithmap.studies.result_record import ClassProbability, ClassRecord, CurvePoints, ImageStudyRecord
from faithmap.studies.settings import AdversarialSettings, ExplainSettings
from faithmap.viz import adversarial_panel, save_figure, save_image
from faithmap.warning_types import suppressed

LEVELS = 255
"""Steps of a pixel's value in a PNG file of 8 bits."""


@dataclass(frozen=True)
class AdversarialResult:
    """The attack on one image, and both explanations.

    Attributes:
        image: that was attacked.
        check: the attack, the maps and the insertion curves.
        saved: probabilities of all classes for the adversarial image, rounded to 8 bits.
        read_again: the same after the model's preprocessing of that image.
        seconds: that the attack and the explanations took.
    """

    image: InputImage
    check: AdversarialCheck
    saved: Float[Tensor, " classes"]
    read_again: Float[Tensor, " classes"]
    seconds: float


@dataclass
class AdversarialStudy(Study[AdversarialSettings, AdversarialResult]):
    """Attacks images; ``target`` is the class that the attack aims for.

    Attributes:
        explainer: explains the image before and after the attack.
    """

    explainer: Explainer

    @classmethod
    def for_model(cls, settings: AdversarialSettings, model: Classifier, target: int | None) -> AdversarialStudy:
        """Prepare the method for a model that is already loaded."""
        method = ExplainSettings(
            method=settings.method,
            resolution=settings.resolution,
            chunk=settings.chunk,
            seed=settings.seed,
            set=settings.set,
        )
        with user_errors():
            return cls(settings, model, target, make_explainer(model, method))

    def analyse(self, image: InputImage, progress: StudyProgress) -> AdversarialResult:
        """Attack the image, and explain it before and after the attack.

        Raises:
            ValueError: if the model already predicts the class that the attack aims for.
        """
        activity = f"attacking and explaining {image.job.file.name}"
        progress(0, activity)
        if self.target is not None and int(self._predict(image.image).argmax()) == self.target:
            raise ValueError(f"the model already predicts {self.model.label(self.target)}; give another --target")
        started = time.perf_counter()
        check = self._check(image, lambda done, total: progress(0.95 * done / total, activity))
        seconds = time.perf_counter() - started
        rounded = check.attack.images.mul(LEVELS).round() / LEVELS
        read_again = self._predict(self.model.preprocess(rounded))
        return AdversarialResult(image, check, self._predict(rounded), read_again, seconds)

    def _check(self, image: InputImage, progress: Any) -> AdversarialCheck:
        settings = self.settings
        with suppressed():
            return adversarial_check(
                self.explainer,
                image.image,
                self.target,
                radius=settings.radius,
                steps=settings.steps,
                targeted=self.target is not None,
                early_stop=settings.early_stop,
                share=settings.share,
                generator=image_generators(settings.seed, [image.index], self.model.device),
                chunk_size=settings.chunk,
                progress=progress,
            )

    def _predict(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, " classes"]:
        return self.probabilities(image)[0]

    def record(self, result: AdversarialResult) -> AdversarialRecord:
        """The content of result.json."""
        return AdversarialRecord.of(result, self)

    def write_files(self, result: AdversarialResult, folder: Path) -> None:
        """Draw the check, and write the adversarial image and both maps, rounded to 8 bits and as arrays."""
        check = result.check
        save_figure(adversarial_panel(result.image.image, check, labels=self.model.labels), folder / "check.png")
        save_image(check.attack.images, folder / "adversarial.png")
        arrays = {
            "adversarial": check.attack.images,
            "clean_heatmap": check.clean.heatmap,
            "adversarial_heatmap": check.adversarial.heatmap,
        }
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values[0].cpu().float().numpy())


@dataclass(frozen=True)
class AttackedMethod:
    """The method that explained both images."""

    name: str
    settings: Mapping[str, Any]
    resolution: tuple[int, int]


@dataclass(frozen=True)
class AttackRecord:
    """The attack: its settings, whether it succeeded, and the largest change of a pixel."""

    name: str
    radius: float
    steps: int
    early_stop: bool
    target: ClassRecord | None
    fooled: bool
    largest_change: float


@dataclass(frozen=True)
class CheckedImage(ClassProbability):
    """The clean or the adversarial image: predicted class, probability of the other image's class, and insertion."""

    other: ClassProbability
    needed: float
    insertion: float
    curve: CurvePoints

    @classmethod
    def checked(
        cls,
        probabilities: Float[Tensor, " classes"],
        curve: Curve,
        needed: Float[Tensor, " 1"],
        other: Tensor,
        model: Classifier,
    ) -> CheckedImage:
        """Describe one of the two images; ``other`` is the class of the other one."""
        best = int(probabilities.argmax())
        return cls(
            best,
            model.label(best),
            float(probabilities[best]),
            ClassProbability.among(int(other[0]), probabilities, model),
            float(needed[0]),
            float(curve.area[0]),
            CurvePoints.of(curve),
        )


@dataclass(frozen=True)
class SavedImage:
    """The prediction for the saved image, as it is and after preprocessing."""

    file: str
    as_it_is: ClassProbability
    read_again: ClassProbability


@dataclass(frozen=True)
class InsertionProtocol:
    """The protocol of insertion, and the share of the full image's probability that has to be reached."""

    name: str
    unit: str
    resolution: tuple[int, int]
    steps: int
    insertion_baseline: Mapping[str, Any]
    share: float

    @classmethod
    def of(cls, check: AdversarialCheck) -> InsertionProtocol:
        """The protocol of a check."""
        protocol, steps = check.protocol, len(check.clean_insertion.fractions) - 1
        baseline = describe_baseline(protocol.insertion_baseline)
        return cls(protocol.name, protocol.unit, check.resolution, steps, baseline, check.share)


@dataclass(frozen=True)
class AdversarialRecord(ImageStudyRecord):
    """Everything that is needed to repeat the check, and everything that was measured."""

    schema: ClassVar[str] = "faithmap.adversarial/1"
    summary_keys: ClassVar[tuple[str, ...]] = (
        *("attack", "clean", "adversarial", "difference", "correlation", "saved", "warnings"),
    )

    method: AttackedMethod
    attack: AttackRecord
    clean: CheckedImage
    adversarial: CheckedImage
    difference: float
    correlation: float
    saved: SavedImage
    protocol: InsertionProtocol
    seconds: float

    @classmethod
    def of(cls, result: AdversarialResult, study: AdversarialStudy) -> AdversarialRecord:
        """Describe a result."""
        check, model = result.check, study.model
        attack, explanation = check.attack, check.clean
        saved, read_again = (
            ClassProbability.among(int(found.argmax()), found, model) for found in (result.saved, result.read_again)
        )
        return cls(
            source=result.image.source(model, study.settings.seed),
            warnings=(*result.image.warnings, *_warnings(check, saved, model)),
            method=AttackedMethod(explanation.method, explanation.settings, explanation.resolution),
            attack=_attack(result, study),
            clean=CheckedImage.checked(
                attack.clean_probabilities[0], check.clean_insertion, check.clean_needed, attack.adversarial_class, model
            ),
            adversarial=CheckedImage.checked(
                attack.adversarial_probabilities[0],
                check.adversarial_insertion,
                check.adversarial_needed,
                attack.clean_class,
                model,
            ),
            difference=float(check.difference[0]),
            correlation=float(check.correlation[0]),
            saved=SavedImage("adversarial.png", saved, read_again),
            protocol=InsertionProtocol.of(check),
            seconds=result.seconds,
        )

    def summary_lines(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The summary for people: the prediction for both images, and the share of cells that insertion needs."""
        share = 100 * self.protocol.share
        yield "", self.source.file.path
        for name, side in (("clean", self.clean), ("adversarial", self.adversarial)):
            cells = f"{100 * side.needed:.0f} % of the cells" if math.isfinite(side.needed) else "the map ranks nothing"
            yield f"  {name:<15} ", f"{side.label} {side.probability:.3f}: {cells} for {share:.3g} % of that"
        saved = self.saved.as_it_is
        yield "  changed         ", f"no pixel by more than {self.attack.largest_change:.3g} of 1"
        yield "  saved in 8 bits ", f"{saved.label} {saved.probability:.3f}"
        yield "  pictures        ", str(folder)


def _attack(result: AdversarialResult, study: AdversarialStudy) -> AttackRecord:
    attack, settings = result.check.attack, study.settings
    return AttackRecord(
        name="MI-FGSM",
        radius=settings.radius,
        steps=settings.steps,
        early_stop=settings.early_stop,
        target=None if study.target is None else ClassRecord.of(study.target, study.model),
        fooled=bool(attack.fooled[0]),
        largest_change=float((attack.images - result.image.image).abs().max()),
    )


def _warnings(check: AdversarialCheck, saved: ClassRecord, model: Classifier) -> Iterator[str]:
    """Warnings about results that do not have their usual meaning."""
    attack = check.attack
    found = int(attack.adversarial_class[0])
    if not bool(attack.fooled[0]):
        predicted = f"{model.label(found)} with {float(attack.adversarial_probabilities.max()):.3f}"
        yield f"the attack failed, the model predicts {predicted}; give a larger --radius or more --steps"
    elif saved.index != found:
        yield f"rounding to 8 bits undid the attack: the model predicts {saved.label} for adversarial.png"
    maps = {"clean": check.clean, "adversarial": check.adversarial}
    warned = {name: explanation.diagnostics[0].get("warnings", ()) for name, explanation in maps.items()}
    of_both = [warning for warning in warned["clean"] if warning in warned["adversarial"]]
    yield from of_both
    for name, messages in warned.items():
        yield from (f"{name} image: {message}" for message in messages if message not in of_both)
