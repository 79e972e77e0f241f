"""Sessions: what is kept for a visitor, and what happens at their end."""

from __future__ import annotations

import pytest
from app_tools import picture

from faithmap.app import desk
from faithmap.app.desk import AppState


def test_the_end_of_a_session_cancels_its_job_and_forgets_its_uploads(state: AppState) -> None:
    session = state.session("a")
    session.tokens.add(state.uploads.put("a.png", picture()))
    cancelled = session.start()
    state.end_session("a")
    assert cancelled.is_set()
    assert len(state.uploads) == 0


def test_the_least_recently_used_session_ends_first(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_SESSIONS", 1)
    first = state.session("b").start()
    state.session("c")
    assert first.is_set()


def test_closing_the_server_cancels_all_jobs(state: AppState) -> None:
    cancelled, called = state.session("a").start(), list[str]()
    state.on_close.append(lambda: called.append("end"))
    state.close()
    assert cancelled.is_set()
    assert called == ["end"]


def test_a_new_job_of_a_visitor_cancels_the_one_before(state: AppState) -> None:
    first = state.session("a").start()
    second = state.session("a").start()
    assert first.is_set()
    assert not second.is_set()
    assert not state.session("b").cancelled.is_set()
