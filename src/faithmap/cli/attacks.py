"""From files to attacks, one image at a time: the part of ``faithmap adversarial`` that needs torch."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.baselines import describe_baseline
from faithmap.cli.adversarial import AdversarialOptions
from faithmap.cli.alone import Alone, Drawn
from faithmap.cli.errors import blaming_the_user
from faithmap.cli.explain import Options
from faithmap.cli.inputs import Photo
from faithmap.cli.methods import make_explainer
from faithmap.cli.record import described_photo, document, guess
from faithmap.cli.report import Bar, Outcome, Tell
from faithmap.cli.results import ADVERSARIAL
from faithmap.cli.runner import open_model, run
from faithmap.metrics.functional import AdversarialCheck, Curve, adversarial_check
from faithmap.viz import adversarial_panel, save_figure, save_image
from faithmap.warning_types import suppressed

LEVELS = 255
"""Of a pixel in a PNG file of 8 bits, black aside."""


def attack_files(paths: Sequence[Path], options: AdversarialOptions, bar: Bar) -> Generator[Outcome, None, None]:
    """Attack images and write the results, one outcome after the other.

    Raises:
        UserError: see :func:`run`.
    """
    return run(paths, options, lambda: Attacks.open(options), bar)


@dataclass(frozen=True)
class Attacks(Alone):
    """Attacks on one image after the other, and the method that explains both sides; ``target`` is what is to be reached."""

    options: AdversarialOptions

    @classmethod
    def open(cls, options: AdversarialOptions) -> Attacks:
        """Load the model and set up the method.

        Raises:
            UserError: for a model, weights, device, class or setting that does not exist.
        """
        model, target = open_model(options)
        with blaming_the_user():
            explainers: dict[str, fm.Explainer] = {options.method: make_explainer(model, _options(options))}
        return cls(options, model, explainers, target)

    def _found(self, photo: Photo, tell: Tell) -> tuple[dict[str, Any], Drawn]:
        """The check, what the saved image is taken for, and what draws the picture."""
        file = photo.job.file.name
        tell(0, f"attacking and explaining {file}")
        if self.target is not None and int(self._asked(photo.image).argmax()) == self.target:
            raise ValueError(f"the model takes it for {self.model.label(self.target)} already; give another --target")
        started = time.perf_counter()
        check = self._checked(photo, lambda done, total: tell(0.95 * done / total, f"attacking and explaining {file}"))
        seconds = time.perf_counter() - started
        record = self._record(photo, check, seconds)
        return record, lambda folder: self._draw(photo, check, folder)

    def _checked(self, photo: Photo, progress: Any) -> AdversarialCheck:
        options = self.options
        generators = fm.image_generators(options.seed, [photo.index], self.model.device)
        with suppressed():
            return adversarial_check(
                self.explainers[options.method],
                photo.image,
                self.target,
                radius=options.radius,
                steps=options.steps,
                targeted=self.target is not None,
                early_stop=options.early_stop,
                share=options.share,
                generator=generators,
                chunk_size=options.chunk,
                progress=progress,
            )

    def _draw(self, photo: Photo, check: AdversarialCheck, folder: Path) -> None:
        save_figure(adversarial_panel(photo.image, check, labels=self.model.labels), folder / "check.png")
        save_image(check.attack.images, folder / "adversarial.png")
        arrays = {
            "adversarial": check.attack.images,
            "clean_heatmap": check.clean.heatmap,
            "adversarial_heatmap": check.adversarial.heatmap,
        }
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values[0].cpu().float().numpy())

    def _record(self, photo: Photo, check: AdversarialCheck, seconds: float) -> dict[str, Any]:
        attack, options = check.attack, self.options
        rounded = attack.images.mul(LEVELS).round() / LEVELS
        saved = self._answer(self._asked(rounded))
        read_again = self._answer(self._asked(self.model.preprocess(rounded)))
        why = check.clean
        record = {
            "schema": ADVERSARIAL,
            **described_photo(photo, self.model, options.seed),
            "method": {"name": why.method, "settings": why.settings, "resolution": why.resolution},
            "attack": {
                "name": "MI-FGSM",
                "radius": options.radius,
                "steps": options.steps,
                "early_stop": options.early_stop,
                "target": None if self.target is None else {"index": self.target, "label": self.model.label(self.target)},
                "fooled": bool(attack.fooled[0]),
                "largest_change": float((attack.images - photo.image).abs().max()),
            },
            "clean": self._side(attack.before[0], check.clean_insertion, check.clean_needed, attack.adversarial_class),
            "adversarial": self._side(
                attack.after[0], check.adversarial_insertion, check.adversarial_needed, attack.clean_class
            ),
            "difference": float(check.difference[0]),
            "correlation": float(check.correlation[0]),
            "saved": {"file": "adversarial.png", "as_it_is": saved, "read_again": read_again},
            "protocol": {
                "name": check.protocol.name,
                "unit": check.protocol.unit,
                "resolution": check.resolution,
                "steps": len(check.clean_insertion.fractions) - 1,
                "insertion_baseline": describe_baseline(check.protocol.insertion_baseline),
                "share": check.share,
            },
            "seconds": seconds,
            "warnings": [*photo.warnings, *self._warnings(check, saved)],
        }
        return document(record)

    def _side(
        self, probabilities: Float[Tensor, " classes"], curve: Curve, needed: Float[Tensor, " 1"], other: Tensor
    ) -> dict[str, Any]:
        """What the model sees in one of the images, what it sees there of the other's class, and the insertion."""
        return {
            **self._answer(probabilities),
            "other": guess(int(other[0]), probabilities, self.model),
            "needed": float(needed[0]),
            "insertion": float(curve.area[0]),
            "curve": {"fractions": curve.fractions.tolist(), "scores": curve.scores[0].tolist()},
        }

    def _warnings(self, check: AdversarialCheck, saved: dict[str, Any]) -> list[str]:
        """What keeps the numbers from meaning what they should."""
        attack = check.attack
        found = int(attack.adversarial_class[0])
        said = []
        if not bool(attack.fooled[0]):
            answer = f"{self.model.label(found)} with {float(attack.after.max()):.3f}"
            said.append(f"the attack failed, the model predicts {answer}; give a larger --radius or more --steps")
        elif saved["index"] != found:
            said.append(f"rounding to 8 bits undid the attack: adversarial.png is taken for {saved['label']}")
        for name, why in (("clean", check.clean), ("adversarial", check.adversarial)):
            said += [f"{name} image: {words}" for words in why.diagnostics[0].get("warnings", ())]
        return said

    @torch.no_grad()
    def _asked(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, " classes"]:
        probabilities: Tensor = self.model(image).softmax(dim=1)[0]
        return probabilities

    def _answer(self, probabilities: Float[Tensor, " classes"]) -> dict[str, Any]:
        return guess(int(probabilities.argmax()), probabilities, self.model)


def _options(options: AdversarialOptions) -> Options:
    """The method's settings; its own resolution where none was given."""
    resolution = 28 if options.resolution is None and options.method in ("igos", "mask") else options.resolution
    return Options(method=options.method, resolution=resolution, chunk=options.chunk, seed=options.seed)
