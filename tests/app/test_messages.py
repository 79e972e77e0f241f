"""Messages for visitors: one line, without paths; unexpected errors are logged."""

from __future__ import annotations

import pytest

from faithmap.app.words import INTERNAL_ERROR, OUT_OF_MEMORY, line_for


def test_an_unexpected_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    assert line_for(KeyError("/root/secret")) == INTERNAL_ERROR
    assert "/root/secret" in caplog.text


def test_an_expected_error_is_one_line_without_paths() -> None:
    assert line_for(RuntimeError("can't allocate memory: 12 bytes")) == OUT_OF_MEMORY
    assert line_for(ValueError("/a/b/c.pt: no weights, see /d/e")) == "c.pt: no weights, see e"
    assert line_for(ValueError("C:\\Users\\x\\c.pt is bad; a 3/4 share")) == "c.pt is bad; a 3/4 share"
    assert line_for(ValueError("a\nb\x1b[2J")) == "a\\nb\\x1b[2J"
