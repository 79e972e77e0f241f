r"""Least infidelity: the channel weights that predict best how the score changes when the image is perturbed.

A perturbation takes the image x to an image z: a reference, a point of a path, noise. With the change of channel k at the
layer, and of the score,

.. math:: D^k = \sum_{ij} \bigl(A^k_{ij}(x) - A^k_{ij}(z)\bigr), \qquad r = y(x) - y(z),

the infidelity (Yeh et al. 2019) of channel weights w is :math:`E[(w \cdot D - r)^2]`. It is zero exactly if the weights are
complete for every perturbation, :math:`w \cdot D = r`. With few samples many weights are equally good; of these the ones
nearest to the expected gradient :math:`\overline{E[g]}` are taken, by a ridge:

.. math:: w^* = \arg\min_w \, E\bigl[(w \cdot D - r)^2\bigr] + \lambda \, E\bigl[|D|^2\bigr] \, |w - \overline{E[g]}|^2
              = \overline{E[g]} + E[D D^T + \lambda |D|^2]^{-1} \, E\bigl[D \, (r - \overline{E[g]} \cdot D)\bigr]

The distribution of z is the estimator's (:mod:`faithmap.methods.cams.estimators`), as for the gradients. Buono et al. derive in
"Not All CAMs Are Complete" (TMLR 2026, of which we have the abstract) that the weights of least infidelity follow from the
perturbations; the derivation here, the ridge and its centre are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from faithmap.methods.cams.weightings import Evidence, grad_cam
from faithmap.methods.settings import check_settings

NEEDS_CHANGES = (
    "weighting='least_infidelity' needs perturbed images; give gradient=Smooth(), Integrated() or Expected(), "
    "with difference='none' and pool='gradient'"
)


@dataclass(frozen=True)
class LeastInfidelity:
    r"""The weighting of least infidelity, for gradient estimators that perturb the image.

    Args:
        ridge: :math:`\lambda`, above 0. Large: the expected gradient; small: the changes alone decide.

    One channel, whose change the score follows with a factor of 3 where the gradient is 2:

    >>> one, changes = torch.ones(1, 1, 1, 1), torch.tensor([[[1.0], [2.0]]])
    >>> evidence = Evidence(one, 2 * one, channel_changes=changes, score_changes=3 * changes[:, :, 0])
    >>> [LeastInfidelity(ridge)(evidence).round(decimals=3).item() for ridge in (1e-6, 1.0)]
    [3.0, 2.5]
    """

    ridge: Annotated[float, Gt(0)] = 0.001

    needs_changes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, evidence: Evidence) -> Float[Tensor, "n k 1 1"]:
        """The weights; in the span of the samples, since these are often fewer than the channels."""
        changes, change = evidence.channel_changes, evidence.score_changes
        if changes is None or change is None:
            raise ValueError(NEEDS_CHANGES)
        start = grad_cam(evidence)
        rest = change - (changes @ start.flatten(1).unsqueeze(2)).squeeze(2)
        products = changes @ changes.mT
        diagonal = self.ridge * products.diagonal(dim1=1, dim2=2).sum(dim=1)
        identity = torch.eye(products.shape[1], dtype=products.dtype, device=products.device)
        shifted = products + diagonal.clamp_min(torch.finfo(products.dtype).tiny).view(-1, 1, 1) * identity
        factors = torch.cholesky_solve(rest.unsqueeze(2), torch.linalg.cholesky(shifted))
        return start + (changes.mT @ factors).view_as(start)
