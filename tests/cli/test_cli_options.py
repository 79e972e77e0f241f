"""Options that commands have in common are said once, and a command's own words hold."""

from __future__ import annotations

from dataclasses import fields

import pytest

from faithmap.cli.adversarial import AdversarialOptions
from faithmap.cli.compare import CompareOptions
from faithmap.cli.explain import Options
from faithmap.cli.options import Shared
from faithmap.cli.saturation import SaturationOptions

COMMANDS = {
    "explain": (Options, "Files that share a name get a part of the SHA-256"),
    "compare": (CompareOptions, "replace comparisons that exist already."),
    "saturation": (SaturationOptions, "the class, by name"),
    "adversarial": (AdversarialOptions, "the class that the image is to be taken for"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_own_options_come_first_and_own_words_hold(command: str, faith, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "400")
    options, words = COMMANDS[command]
    own, shared = faith(command, "--help").out.split("Class, model, results and run")
    common = {field.name for field in fields(Shared)}
    for field in fields(options):
        name, box = field.name.replace("_", "-"), shared if field.name in common else own
        (line,) = (line for line in box.splitlines() if f"--{name} " in line)
        assert len(line.strip("│ ").split("  ", 1)[1].strip()) > 10, "every option is explained"
    assert words in shared
    assert f"[default: {options().out}]" in shared
    assert "images in one pass of the model, at the most; fewer need less memory. [default: 32]" in shared
