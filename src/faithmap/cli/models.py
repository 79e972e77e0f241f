"""``faithmap models``."""

from __future__ import annotations

from faithmap.cli.report import make_console

_OTHER_MODELS = """
Other models are downloaded when they are first used: timm/NAME, torchvision/NAME, hf/REPO.
To use your own weights with any of these: --weights FILE, safetensors or a state dict that torch.save wrote."""


def models() -> int:
    """List the models whose weights are installed with pip, and how other models are named."""
    from faithmap.zoo import names  # noqa: PLC0415 - torch takes seconds; --help must not

    console = make_console()
    for name in names():
        console.print(name)
    console.print(_OTHER_MODELS)
    return 0
