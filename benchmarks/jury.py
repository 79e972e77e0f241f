"""What a jury says of every method: values by juror, paired with a reference; and what it says of classes that are absent.

    python benchmarks/jury.py --photos ../shared/photos --part all --count 20
    python benchmarks/jury.py --photos ../shared/photos --part all --count 20 --absent

Every map is resampled to ``--resolution`` cells, so that all are ranked at the same cells. A juror's value is the insertion
area less the deletion area under its removal; ``--second`` names more networks, each a juror, which blur. A value in brackets:
the method optimised that removal, so it is no evidence for it. The first column is the mean of the jurors that no method of the
table optimised, the second of those that the row did not. ``--absent`` explains a class that is not in the photograph (the
label of another photograph, of probability below 0.01) and prints the score that insertion makes up, divided by the class's own
score in the whole photograph. ``--save`` keeps every value in a Parquet file; what is in it is not measured again.
"""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import arguments, difference, load_photos, table, with_error
from jaxtyping import Float
from torch import Tensor

import faithmap as fm
from faithmap.baselines import family_of
from faithmap.methods.base import Explainer
from faithmap.metrics.functional.curves import prepared_inputs
from faithmap.metrics.functional.evidence import CONTROLS, controls_of
from faithmap.metrics.functional.jurors import Case, Judgement, Removal, other_photograph
from faithmap.model import undisturbed
from faithmap.warning_types import suppressed

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)

JURORS = (
    Removal("blur", ("blur",)),
    Removal("grey", ("grey",)),
    Removal("noise", ("noise",)),
    Removal("photograph", (other_photograph,)),
    Removal("patches", (fm.Shuffled(),)),
    Removal("mirrored", ("blur",), view="mirrored"),
)

Value = tuple[str, str, str, float, float, float]
"""Photograph, method, juror, value, excess of insertion over the image's own score, that score."""
COLUMNS = ("photo", "method", "juror", "value", "excess", "own")


def methods(model: fm.Classifier, options: Namespace) -> dict[str, Explainer]:
    """The rows of the table."""
    shared = {"seed": options.seed, "chunk_size": options.chunk}
    free = {**shared, "resolution": options.resolution}
    from panel_descent import candidates  # noqa: PLC0415 - only this table has them

    found: dict[str, Explainer] = {
        **candidates(model, free),
        "rank descent": fm.RankDescent(model, **free),
        "rank descent, no prior": fm.RankDescent(model, **free, prior=None),
        "I-GOS": fm.IGOS(model, **free),
        "Mask": fm.Mask(model, **free),
        "Expected Fused CAM": fm.ExpectedFusedCAM(model, **shared),
        "Fused CAM": fm.FusedCAM(model, **shared),
        "Grad-CAM": fm.GradCAM(model, **shared),
        "Integrated Gradients": fm.IntegratedGradients(model, **shared),
        "RISE": fm.RISE(model, **shared),
    }
    return {name: found[name] for name in options.methods}


@dataclass
class Values:
    """Measured values, kept in a Parquet file.

    Attributes:
        path: of the file; None keeps them only in memory.
        rows: by photograph and method.
    """

    path: Path | None
    rows: dict[tuple[str, str], list[Value]]

    @classmethod
    def at(cls, path: Path | None) -> Values:
        """The values of a file, if there is one."""
        rows: dict[tuple[str, str], list[Value]] = defaultdict(list)
        if path is not None and path.exists():
            for row in pq.read_table(path).to_pylist():
                rows[row["photo"], row["method"]].append(tuple(row[name] for name in COLUMNS))
        return cls(path, rows)

    def add(self, values: Iterable[Value]) -> None:
        """Keep values, and write the file anew."""
        for value in values:
            self.rows[value[0], value[1]].append(value)
        if self.path is not None:
            everything = [value for rows in self.rows.values() for value in rows]
            columns = dict(zip(COLUMNS, map(list, zip(*everything, strict=True)), strict=True))
            unfinished = self.path.with_suffix(".part")
            pq.write_table(pa.table(columns), unfinished)
            unfinished.replace(self.path)

    def of(self, method: str, juror: str, photos: Sequence[str], column: int = 3) -> list[float]:
        """One value for each photograph."""
        return [next(float(v[column]) for v in self.rows[photo, method] if v[2] == juror) for photo in photos]


def resampled(explanation: fm.Explanation, resolution: int) -> fm.Explanation:
    """The map at the table's cells, each value the mean over its neighbourhood if they are coarser than the map's own."""
    from igos_quality import averaged  # noqa: PLC0415 - shares the photographs' options

    heatmap = averaged(explanation, resolution).at((resolution, resolution))
    return replace(explanation, heatmap=heatmap, rows=None, columns=None)


def judged(
    model: fm.Classifier,
    image: Float[Tensor, "1 3 h w"],
    maps: Sequence[fm.Explanation],
    seconds: Mapping[str, fm.Classifier],
    options: Namespace,
) -> tuple[list[str], list[Judgement], float]:
    """The judgement of every juror on all maps and the control maps; the class's own score."""
    generators = fm.image_generators(options.seed, [0])
    with (
        prepared_inputs(model, image, replace(maps[0], optimises=()), None, chunk_size=options.chunk) as inputs,
        torch.no_grad(),
    ):
        case = Case(model, inputs, [*maps, *controls_of(inputs, generators)], FRACTIONS, chunk_size=options.chunk)
        names, found = [], []
        for juror in JURORS:
            names.append(juror.name)
            found.append(juror.judge(case))
        for name, second in seconds.items():
            with undisturbed(second):
                names.append(name)
                found.append(Removal(name, ("blur",), second=True).judge(replace(case, second=second)))
        return names, found, float(inputs.clean)


def optimised(juror: str, families: Sequence[str]) -> bool:
    """Whether a juror's removal is of a kind that the method optimised."""
    removal = next((j.baselines[0] for j in JURORS if j.name == juror), None)
    return removal is not None and family_of(removal) in families


def absent_class(model: fm.Classifier, image: Tensor, labels: Sequence[int]) -> int:
    """The first of these classes that the model does not recognise."""
    with torch.no_grad():
        probabilities = model(image).softmax(dim=1)[0]
    return next(label for label in labels if float(probabilities[label]) < 0.01)


def measure(model: fm.Classifier, photos: Sequence[str], images: Tensor, values: Values, options: Namespace) -> list[str]:
    """Measure what is missing; the names of the jurors."""
    explainers = methods(model, options)
    seconds = {name: fm.load(name).to(memory_format=torch.channels_last) for name in options.second}
    with torch.no_grad():
        labels = torch.cat([model(image).argmax(dim=1) for image in images.split(1)]).tolist()
    names = [juror.name for juror in JURORS] + list(seconds)
    for number, (photo, image) in enumerate(zip(photos, images.split(1), strict=True)):
        missing = [name for name in (*explainers, *CONTROLS) if (photo, name) not in values.rows]
        if not missing:
            continue
        target = absent_class(model, image, labels[number + 1 :] + labels[:number]) if options.absent else None
        with suppressed():
            todo = {name: explain for name, explain in explainers.items() if name in missing}
            maps = {name: resampled(explain(image, target), options.resolution) for name, explain in todo.items()}
            maps = maps or {"Fused CAM": resampled(fm.FusedCAM(model)(image, target), options.resolution)}
            jurors, found, own = judged(model, image, list(maps.values()), seconds, options)
        columns = [*maps, *CONTROLS]
        rows = [
            (photo, name, juror, float(judgement.values[0, i]), float(judgement.excess[0, i]), own)
            for juror, judgement in zip(jurors, found, strict=True)
            for i, name in enumerate(columns)
            if name in missing
        ]
        values.add(rows)
        print(f"{photo} done", file=sys.stderr)
    return names


def report(
    values: Values, photos: Sequence[str], jurors: Sequence[str], explainers: Mapping[str, Explainer], options: Namespace
) -> str:
    """The table: every method's value by juror, and the mean over those that it did not optimise, paired to the reference."""
    rows = []
    of_any = {family for explainer in explainers.values() for family in explainer.optimises()}
    for name in (*explainers, *CONTROLS):
        families = explainers[name].optimises() if name in explainers else ()
        own = {juror: values.of(name, juror, photos) for juror in jurors}
        reference = {juror: values.of(options.reference, juror, photos) for juror in jurors}
        free = [juror for juror in jurors if not optimised(juror, families)]
        means = []
        for chosen in ([juror for juror in jurors if not optimised(juror, sorted(of_any))], free):
            mean, theirs = ([sum(v) / len(v) for v in zip(*(of[j] for j in chosen), strict=True)] for of in (own, reference))
            means += [with_error(mean), difference(mean, theirs) if name != options.reference else ""]
        cells = [with_error(own[juror]) if juror in free else f"({with_error(own[juror])})" for juror in jurors]
        rows.append([name, *means, *cells])
    paired = f"paired to {options.reference}"
    return table(["method", "jurors free for all", paired, "jurors free for the row", paired, *jurors], rows)


def made_up(values: Values, photos: Sequence[str], explainers: Iterable[str]) -> str:
    """How far insertion under the method's own blur exceeds the score of an absent class, in multiples of that score."""
    rows = []
    for name in (*explainers, *CONTROLS):
        excess, own = (values.of(name, "blur", photos, column) for column in (4, 5))
        reached = [a + b for a, b in zip(excess, own, strict=True)]
        rows.append([name, f"{sum(own) / len(own):.5f}", with_error(reached), f"{sum(reached) / sum(own):.1f}"])
    return table(["method", "own score", "score that insertion reaches", "ratio of the means"], rows)


def probabilities(model: fm.Classifier, images: Float[Tensor, "n 3 h w"]) -> str:
    """How often a class of another photograph, and the predicted class, are above a probability."""
    with torch.no_grad():
        found = torch.cat([model(image).softmax(dim=1) for image in images.split(1)])
    own, labels = found.max(dim=1)
    other = found[:, labels.unique()]
    absent = other[other < own.unsqueeze(1)]
    rows = []
    for threshold in (0.001, 0.003, 0.01, 0.03, 0.1):
        shares = (100 * float((values > threshold).double().mean()) for values in (absent, own))
        rows.append([f"{threshold}", *(f"{share:.2f} %" for share in shares)])
    return table(["probability above", "classes of other photographs", "predicted classes"], rows)


def main() -> None:
    """Measure, print, save."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    default = ["rank descent", "rank descent, no prior", "Expected Fused CAM", "Fused CAM", "Grad-CAM", "Integrated Gradients"]
    parser.add_argument("--methods", nargs="+", default=default, help="also I-GOS, Mask and RISE, which take long")
    parser.add_argument("--resolution", type=int, default=28, help="cells per side at which all maps are ranked")
    parser.add_argument("--reference", default="Grad-CAM", help="the row that the others are compared with")
    parser.add_argument("--second", nargs="*", default=["efficientnet_lite1", "efficientnet_lite2"])
    parser.add_argument("--absent", action="store_true", help="explain a class that is not in the photograph")
    parser.add_argument("--probabilities", action="store_true", help="only how probable absent classes are")
    parser.add_argument("--save", type=Path, default=None, help="Parquet file of every value")
    options = parser.parse_args()
    warnings.simplefilter("ignore", fm.FaithmapWarning)
    model = fm.load(options.model, device=options.device).to(memory_format=torch.channels_last)
    photos, images = load_photos(options, model)
    if options.probabilities:
        print(f"{options.model}, {len(photos)} photographs ({options.part})\n\n{probabilities(model, images)}")
        return
    values = Values.at(options.save)
    jurors = measure(model, photos, images, values, options)
    kind = "an absent class" if options.absent else "the predicted class"
    print(f"\n{options.model}, {len(photos)} photographs ({options.part}), {options.resolution} cells per side, {kind}\n")
    if options.absent:
        print(made_up(values, photos, options.methods))
    else:
        print(report(values, photos, jurors, methods(model, options), options))


if __name__ == "__main__":
    main()
