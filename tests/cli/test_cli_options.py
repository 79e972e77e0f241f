"""Options that commands have in common are said once, and a command's own words hold."""

from __future__ import annotations

from dataclasses import fields

import pytest
from cli_tools import Cli

from faithmap.cli.adversarial import AdversarialArguments
from faithmap.cli.arguments import CommonArguments
from faithmap.cli.compare import CompareArguments
from faithmap.cli.explain import ExplainArguments
from faithmap.cli.saturation import SaturationArguments

COMMANDS = {
    "explain": (ExplainArguments, "the first eight digits of the SHA-256"),
    "compare": (CompareArguments, "replace existing comparisons."),
    "saturation": (SaturationArguments, "the class, by name"),
    "adversarial": (AdversarialArguments, "the class that the attack aims for"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_own_options_and_descriptions_come_first(command: str, faith: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    options, words = COMMANDS[command]
    own, shared = faith(command, "--help").out.split("Class, model, results and run")
    common = {field.name for field in fields(CommonArguments)}
    for field in fields(options):
        name, box = field.name.replace("_", "-"), shared if field.name in common else own
        (line,) = (line for line in box.splitlines() if f"--{name} " in line)
        assert len(line.strip("│ ").split("  ", 1)[1].strip()) > 10, "every option is explained"
    assert words in shared
    assert f"[default: {options().out}]" in shared
    assert "maximum number of images in one pass of the model; fewer need less memory. [default: 32]" in shared
