"""The models that the page offers, and the methods and settings that fit each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from app_tools import small_model
from oracles import SmallNet
from torch import nn

import faithmap as fm
from faithmap.app.asking import offered_model
from faithmap.app.controls import LABELS, fitting, settings_of
from faithmap.app.desk import AppState
from faithmap.app.models import OfferedModel, OfferedModels
from faithmap.app.words import RefusedError
from faithmap.studies.settings import ExplainSettings


def test_only_methods_and_settings_that_fit_the_model_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    known = OfferedModel.of(small_model())
    assert "learned_mask" not in known.methods
    assert known.methods["gradcam"] == {"target_layer", "score"}
    assert known.methods["rank_descent"] == {"resolution", "iterations", "baseline", "score"}
    assert "samples" in known.methods["integrated_gradcam"]
    assert known.layers[0] in ("conv2", "drop")
    monkeypatch.setattr("faithmap.app.models.find_spec", lambda name: None)
    assert "deeplift" not in OfferedModel.of(small_model()).methods

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(x.mean(dim=(2, 3)))
            return scores

    flat = OfferedModel.of(fm.Classifier(Flat(), geometry=fm.Geometry(16, (16, 16))))
    assert flat.cams == []
    assert "rank_descent" in flat.methods
    assert "gradcam" not in flat.methods


def test_methods_that_do_not_support_an_operation_of_the_model_are_not_offered(
    untouched: Callable[[nn.Module], nn.Module],
) -> None:
    class Winding(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.sinh()).sinh()

    class Plain(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    particular = {"excitation_backprop", "contrastive_excitation_backprop", "lrp"}
    for net, offered in ((Plain(), particular), (Winding(), set())):
        model = fm.Classifier(net, geometry=fm.Geometry(32, (32, 32))).eval()
        untouched(model)
        known = OfferedModel.of(model)
        assert known.methods.keys() & particular == offered
        assert "rank_descent" in known.methods


def test_settings_outside_their_limits_are_refused() -> None:
    known = OfferedModel.of(small_model())
    nothing = [None] * len(LABELS)
    assert settings_of(known, "small", 1, "rank_descent", *nothing) == ExplainSettings(
        model="small", method="rank_descent", target="1"
    )
    seven = settings_of(known, "small", 1, "rank_descent", 7, *nothing[1:])
    assert seven.resolution == 7
    assert settings_of(known, "small", 1, "rank_descent", 28, *nothing[1:]).resolution is None, "its own"
    for wrong in (0, 33, -1, 1e9, float("nan"), "7"):
        with pytest.raises(RefusedError, match="cells per side"):
            settings_of(known, "small", 1, "rank_descent", wrong, *nothing[1:])
    with pytest.raises(RefusedError, match="does not fit"):
        settings_of(known, "small", 1, "learned_mask", *nothing)


def test_models_that_are_not_offered_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, device: str | None = None) -> fm.Classifier:
        loaded.append(name)
        return small_model(name)

    models = OfferedModels(["a", "b", "c"], None, load)
    with pytest.raises(RefusedError, match="not offered"):
        models.get("hf/evil")
    for name in ("a", "b", "a", "c", "a", "b"):
        assert models.get(name).model.name == name
    assert loaded == ["a", "b", "c", "b"], "two are kept, the latest"


def test_models_are_loaded_and_run_only_in_the_job_thread(tmp_path: Path) -> None:
    """Two threads with hooks on the layers of one model would disturb each other."""
    asking: set[str] = set()

    def load(name: str, device: str | None = None) -> fm.Classifier:
        model = small_model(name)
        model.register_forward_pre_hook(lambda *given: asking.add(threading.current_thread().name))
        asking.add(threading.current_thread().name)
        return model

    state = AppState(OfferedModels(["a", "b", "c"], None, load), tmp_path)
    for name in ("a", "b", "c", "a"):
        assert fitting(offered_model(state, name), "gradcam")[0]["value"] == "gradcam"
        assert offered_model(state, name).cams
    assert {name.rpartition("_")[0] for name in asking} == {"faithmap-app"}
    with pytest.raises(RefusedError, match="not offered"):
        offered_model(state, "hf/evil")
    state.close()
