"""How much of a clean and of an adversarial image its class needs: the conclusion of I-GOS, supplement IV, over photographs.

The paper shows single photographs: a small part of a clean image restores its class, almost all of an adversarial one is
needed, and the two heatmaps are unrelated. Here both images are explained for each attack and method, and the mean over the
photographs has its standard error. The last columns are paired photograph by photograph.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from common import arguments, difference, load_photos, table, with_error

import faithmap as fm
from faithmap.methods.registry import explainer_from
from faithmap.metrics.functional import AdversarialCheck, adversarial_check

ATTACKS = {
    "paper: 16/255, all steps": (16 / 255, False),
    "8/255, all steps": (8 / 255, False),
    "16/255, early stop": (16 / 255, True),
    "8/255, early stop": (8 / 255, True),
}
HEADER = (
    *("attack", "method", "photographs", "needed, clean", "needed, adversarial"),
    *("adversarial - clean", "photographs where it is more", "insertion, adversarial - clean", "correlation of the maps"),
)


def row(name: str, method: str, checks: list[AdversarialCheck], count: int) -> list[str]:
    """One row of the table, over the photographs on which the attack succeeded."""
    clean, adversarial, correlation = (
        torch.cat(values).tolist()
        for values in zip(*((c.clean_needed, c.adversarial_needed, c.correlation) for c in checks), strict=True)
    )
    areas = [(c.adversarial_insertion.area.item(), c.clean_insertion.area.item()) for c in checks]
    more = sum(attacked > plain for plain, attacked in zip(clean, adversarial, strict=True))
    return [
        *(name, method, f"{len(checks)} of {count}", with_error(clean), with_error(adversarial)),
        *(difference(adversarial, clean), f"{more}", difference(*map(list, zip(*areas, strict=True))), with_error(correlation)),
    ]


def checks(
    explainer: fm.Explainer, images: torch.Tensor, attack: tuple[float, bool], options: argparse.Namespace
) -> Iterator[AdversarialCheck]:
    """The check of every photograph on which the attack succeeds and both maps rank cells."""
    radius, early_stop = attack
    for number, image in enumerate(images.split(1)):
        with fm.warning_types.suppressed():
            check = adversarial_check(
                explainer,
                image,
                radius=radius,
                early_stop=early_stop,
                share=options.share,
                insertion_steps=options.steps,
                seed=options.seed + number,
                chunk_size=options.chunk,
            )
        if bool(check.valid):
            yield check


def main() -> None:
    """One row for each attack and method, printed when it is complete."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "", count=50)
    parser.add_argument("--methods", default="gradcam", help="names separated by commas, with default settings")
    parser.add_argument("--attacks", type=int, nargs="*", default=[0, 1, 2, 3], help=f"numbers in {list(ATTACKS)}")
    parser.add_argument("--steps", type=int, default=50, help="steps of the insertion curves")
    parser.add_argument("--share", type=float, default=0.5, help="share of the full image's probability")
    options = parser.parse_args()
    model = fm.load(options.model, device=options.device)
    names, images = load_photos(options, model)
    print(table(HEADER, []), flush=True)
    for name, attack in [list(ATTACKS.items())[number] for number in options.attacks]:
        for method in options.methods.split(","):
            valid = list(checks(explainer_from(method, model, {}), images, attack, options))
            print(f"| {' | '.join(row(name, method, valid, len(names)))} |", flush=True)


if __name__ == "__main__":
    main()
