"""``faithmap models``: which models there are, and how others are named."""

from __future__ import annotations

from faithmap.cli.report import make_console

OTHERS = """
Others are downloaded when they are first used: timm/NAME, torchvision/NAME, hf/REPO.
Weights of your own for any of these: --weights FILE, safetensors or a state dict that torch.save wrote."""


def models() -> int:
    """List the models whose weights are installed with pip, and say how others are named."""
    from faithmap.zoo import names  # noqa: PLC0415 - torch takes seconds; --help must not

    console = make_console()
    for name in names():
        console.print(name)
    console.print(OTHERS)
    return 0
