r"""SaCo, the salience-guided faithfulness coefficient (Wu et al., CVPR 2024): do the magnitudes of a heatmap mean anything?

The pixels are ranked and divided into K groups :math:`G_1, \dots, G_K` of equal size, the highest first. Let :math:`s_i` be the
mean of the heatmap over group i, and :math:`d_i` the fall of the score if group i alone is replaced by the mean colour. Of two
groups i < j the first should matter more, and the more so the greater the difference of their means:

.. math:: SaCo = \frac{\sum_{i < j} w_{ij}}{\sum_{i < j} |w_{ij}|}, \qquad
          w_{ij} = \begin{cases} s_i - s_j & d_i \ge d_j \\ -(s_i - s_j) & \text{otherwise} \end{cases}

It is in [-1, 1]; 0 in expectation for a random map, and 0 here for a constant one, all of whose weights are 0. The paper takes
sums; of equal groups these are the means times a factor that cancels, and where groups differ by a pixel the means are
comparable. Source: "On the Faithfulness of Vision Transformer Explanations", Algorithm 1. Deletion and insertion depend on the
order of the cells alone; this depends on their values. A map times a positive factor scores the same.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from faithmap.baselines import Baseline, make_baseline, with_zero
from faithmap.explanation import Explanation, cell_ranks
from faithmap.metrics.functional.curves import Progress, prepared_inputs
from faithmap.model import normalised_zero
from faithmap.probe import MaskProbe
from faithmap.score import Target


def saco(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    heatmaps: Explanation | Float[Tensor, "n r c"],
    target: Target = None,
    *,
    groups: int = 10,
    baseline: Baseline = "mean",
    chunk_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, " n"]:
    """Remove each group of pixels alone, and compare the falls of the score with the means of the heatmap.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> saco(model, torch.rand(1, 1, 4, 4), torch.ones(1, 4, 4))
    tensor([0.])

    Args:
        model: the model that was explained.
        images: the images that were explained.
        heatmaps: high where it matters, resampled to the image's size; a tensor of the maps alone, or an Explanation, whose
            target is then the default.
        target: the class whose softmax probability is the score, or a callable; None for the Explanation's target, or else the
            predicted class.
        groups: K, at least 2 and at most the number of pixels.
        baseline: what a removed pixel becomes; the paper takes the mean of the image.
        chunk_size: maximum number of images per pass.
        autocast: a lower precision for the model's passes; None for full precision.
        progress: called with (images done, number of images).

    Raises:
        ValueError: for maps that do not fit the images or contain NaN, or a number of groups outside its range.
    """
    if not 2 <= groups <= images.shape[-2:].numel():
        raise ValueError(f"groups is {groups}; give 2 or more, and at most the number of pixels")
    values = []
    with prepared_inputs(model, images, heatmaps, target, chunk_size=chunk_size, autocast=autocast) as inputs:
        removed = with_zero(baseline, normalised_zero(model))
        for part in inputs.index.split(chunk_size):
            chosen, score = inputs.images[part], inputs.score.of(part)
            heatmap = replace(inputs.explanation, heatmap=inputs.explanation.heatmap[part]).at(inputs.size)
            probe = MaskProbe(model, score, chosen, make_baseline(removed, chosen), chunk_size=chunk_size, autocast=autocast)
            values.append(_coefficient(*_groups(probe, heatmap, inputs.clean[part], groups)))
            if progress is not None:
                progress(int(part[-1]) + 1, len(images))
    return torch.cat(values)


def _groups(
    probe: MaskProbe, heatmap: Float[Tensor, "m h w"], clean: Float[Tensor, " m"], groups: int
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
    """The mean of the heatmap over each group, and the fall of the score without it."""
    bounds = torch.linspace(0, heatmap[0].numel(), groups + 1, dtype=torch.float64).round().long().to(heatmap.device)
    group = torch.bucketize(cell_ranks(heatmap), bounds[1:], right=True)
    sums = heatmap.new_zeros(len(heatmap), groups).scatter_add_(1, group.flatten(1), heatmap.flatten(1))
    means = sums / bounds.diff().to(sums.dtype)
    pairs = torch.cartesian_prod(torch.arange(len(heatmap), device=heatmap.device), torch.arange(groups, device=heatmap.device))
    scores = []
    for index, removed in (chunk.T for chunk in pairs.split(probe.chunk_size)):
        kept = group[index] != removed.view(-1, 1, 1)
        scores.append(probe.scores(kept.to(probe.images.dtype), index))
    return means, clean.unsqueeze(1) - torch.cat(scores).view(len(heatmap), groups)


def _coefficient(means: Float[Tensor, "m k"], falls: Float[Tensor, "m k"]) -> Float[Tensor, " m"]:
    """SaCo of groups in the order of their rank."""
    first, second = torch.triu_indices(means.shape[1], means.shape[1], offset=1, device=means.device)
    difference = means[:, first] - means[:, second]
    weights = torch.where(falls[:, first] >= falls[:, second], difference, -difference)
    total = weights.abs().sum(dim=1)
    return torch.where(total > 0, weights.sum(dim=1) / total, 0.0)
