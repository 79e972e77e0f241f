from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier


class Corners(nn.Module):
    """Three classes that look for red in the upper left quarter, green in the lower right one, and for blue."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        return 4 * torch.stack([x[:, 0, :h, :w].mean((1, 2)), x[:, 1, h:, w:].mean((1, 2)), x[:, 2].mean((1, 2))], dim=1)


@pytest.fixture(scope="session")
def model() -> Classifier:
    return Classifier(Corners(), labels=["ruby", "emerald", "sapphire"])


@pytest.fixture(scope="session")
def image() -> Tensor:
    """Noise of 8 bits, 40 rows by 60 columns."""
    levels = torch.randint(0, 256, (1, 3, 40, 60), generator=torch.Generator().manual_seed(0))
    return levels.float() / 255


@pytest.fixture(scope="session")
def explanation() -> Explanation:
    """A hundred cells, all different."""
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1)).float()
    return Explanation(order.view(1, 10, 10), (40, 60), target=torch.tensor([1]), method="Oracle")


@pytest.fixture(scope="session")
def evidence(model: Classifier, image: Tensor, explanation: Explanation) -> DeletionInsertion:
    return deletion_insertion(model, image, explanation)
