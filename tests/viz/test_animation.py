from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from faithmap.baselines import make_baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional import DeletionInsertion, deletion_insertion
from faithmap.model import Classifier
from faithmap.viz.figure import KINDS, to_bytes
from faithmap.viz.removal_steps import FrameRenderer, animation, animation_frames, write_animation

SCALE = 4  # 40 rows are enlarged to 160


def pictures(frame: np.ndarray) -> list[np.ndarray]:
    """Deletion's and insertion's picture, at the image's own size."""
    return [frame[28 : 28 + 160 : SCALE, left : left + 240 : SCALE] for left in (12, 12 + 240 + 12)]


def read(path: Path) -> tuple[list[np.ndarray], list[int], int]:
    with Image.open(path) as file:
        frames, durations = [], []
        for i in range(getattr(file, "n_frames", 1)):
            file.seek(i)
            frames.append(np.asarray(file.convert("RGB")))
            durations.append(file.info["duration"])
        return frames, durations, file.info["loop"]


def test_first_and_last_frames_are_image_and_baseline(
    image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    first, last = animation_frames(image, explanation, None, evidence, torch.tensor([0, 50]))
    blurred = to_bytes(make_baseline("blur", image))
    for frame, expected in ((first, (to_bytes(image), blurred)), (last, (blurred, to_bytes(image)))):
        for picture, wanted in zip(pictures(frame), expected, strict=True):
            assert np.abs(picture.astype(int) - wanted).max() <= 1


def test_the_pictures_of_a_frame_have_the_scores_of_the_curves(
    model: Classifier, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    for step, frame in zip(
        (3, 20, 41), animation_frames(image, explanation, None, evidence, torch.tensor([3, 20, 41])), strict=True
    ):
        for picture, curve in zip(pictures(frame), (evidence.deletion, evidence.insertion), strict=True):
            tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
            assert float(model(tensor).softmax(1)[0, 1]) == pytest.approx(float(curve.scores[0, step]), abs=0.002)


def test_curves_grow_with_the_frames(evidence: DeletionInsertion) -> None:
    renderer = FrameRenderer(evidence, (160, 240), "probability")
    blank = {kind: np.full((160, 240, 3), 255, np.uint8) for kind in KINDS}
    initial = renderer.frame(10, blank)
    after = renderer.frame(30, blank)
    assert bool((initial != after).any())
    for kind, curve in zip(KINDS, (evidence.deletion, evidence.insertion), strict=True):
        x, y = renderer.moving[kind].line.get_data()
        np.testing.assert_array_equal(x, curve.fractions[:31].double())
        np.testing.assert_array_equal(y, curve.scores[0, :31].double())
        assert renderer.moving[kind].caption.get_text() == f"{kind}  {float(curve.scores[0, 30]):.3f}"
    np.testing.assert_array_equal(renderer.frame(10, blank), initial)


@pytest.mark.parametrize(("suffix", "count"), [(".gif", 51), (".webp", 6), (".GIF", 3)])
def test_file_has_the_frames_and_repeats(
    tmp_path: Path, image: Tensor, explanation: Explanation, evidence: DeletionInsertion, suffix: str, count: int
) -> None:
    path = tmp_path / f"steps{suffix}"
    animation(image, explanation, "blur", evidence, path, frames=count, seconds=0.1 * count)
    frames, durations, loop = read(path)
    assert len(frames) == count
    assert loop == 0
    assert durations == [600, *[100] * (count - 2), 600]
    step = 50 // (count - 1)
    for i, expected in zip(
        (0, 1, count - 1), animation_frames(image, explanation, "blur", evidence, torch.tensor([0, step, 50])), strict=True
    ):
        assert frames[i].shape == expected.shape
        assert np.abs(frames[i].astype(int) - expected).mean() < 8


def test_gif_of_a_smooth_image_is_accurate_and_small(tmp_path: Path, model: Classifier) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    image = torch.stack([rows, columns, 0.5 * (rows + columns)])[None]
    explanation = Explanation(
        torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0)), (224, 224), target=torch.tensor([0])
    )
    evidence = deletion_insertion(model, image, explanation, steps=25, baseline="grey")
    animation(image, explanation, None, evidence, tmp_path / "a.gif", frames=13)
    assert (tmp_path / "a.gif").stat().st_size < 500_000
    frames, _, _ = read(tmp_path / "a.gif")
    for frame, expected in ((frames[0], to_bytes(image)), (frames[-1], to_bytes(torch.full_like(image, 0.5)))):
        error = np.abs(frame[28 : 28 + 224, 12 : 12 + 224].astype(int) - expected)
        assert error.mean() < 6
        assert error.max() < 40


def test_background_stays_white_beside_nearly_white_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(240, 255, (4, 64, 64, 3), dtype=np.uint8)
    frames[:, :8] = 255
    write_animation(list(frames), [100] * 4, tmp_path / "a.gif")
    for picture, frame in zip(read(tmp_path / "a.gif")[0], frames, strict=True):
        assert picture[:8].min() == 255
        assert np.abs(picture.astype(int) - frame).mean() < 4


def test_few_frames_are_spread_evenly_over_the_curves(
    tmp_path: Path, image: Tensor, explanation: Explanation, evidence: DeletionInsertion
) -> None:
    animation(image, explanation, None, evidence, tmp_path / "a.webp", frames=3, seconds=1.2)
    frames, durations, _ = read(tmp_path / "a.webp")
    expected = list(animation_frames(image, explanation, None, evidence, torch.tensor([0, 25, 50])))
    assert durations == [900, 400, 900]
    assert [np.abs(f.astype(int) - e).mean() < 8 for f, e in zip(frames, expected, strict=True)] == [True] * 3


def test_same_file_twice(tmp_path: Path, image: Tensor, explanation: Explanation, evidence: DeletionInsertion) -> None:
    for suffix in (".gif", ".webp"):
        for name in "ab":
            animation(image, explanation, None, evidence, tmp_path / (name + suffix), frames=3)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_pixels_are_played_where_the_proof_did(model: Classifier, image: Tensor, explanation: Explanation) -> None:
    """Half of the 2400 pixels are deleted at point 20 of 40; the zero of this model, which normalises nothing, is black."""
    evidence = deletion_insertion(model, image, explanation, protocol="rise")
    (frame,) = animation_frames(image, explanation, None, evidence, torch.tensor([20]))
    deleted, _ = pictures(frame)
    assert (deleted.sum(axis=-1) == 0).sum() == pytest.approx(1200, abs=2)
    (frame,) = animation_frames(image, explanation, "white", evidence, torch.tensor([20]))
    assert (pictures(frame)[0] == 255).all(axis=-1).sum() == pytest.approx(1200, abs=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "steps.mp4"}, "ends in .gif or .webp"),
        ({"frames": 1}, "give at least 2"),
        ({"explanation": Explanation(torch.rand(1, 7, 7), (40, 60))}, "evidence has 10 x 10 cells, the map 7 x 7"),
        ({"explanation": Explanation(torch.ones(1, 10, 10), (40, 60))}, "ranks nothing"),
        ({"image": torch.zeros(2, 3, 40, 60)}, "2 images"),
    ],
)
def test_inputs_that_do_not_fit(
    tmp_path: Path, image: Tensor, explanation: Explanation, evidence: DeletionInsertion, change: dict[str, Any], message: str
) -> None:
    given = {"image": image, "explanation": explanation, "baseline": None, "evidence": evidence, "path": "steps.gif", **change}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message):
        animation(**given)
    assert not list(tmp_path.iterdir())


def test_proof_of_several_images(image: Tensor, explanation: Explanation, evidence: DeletionInsertion) -> None:
    several = replace(evidence, deletion=replace(evidence.deletion, scores=evidence.deletion.scores.repeat(2, 1)))
    with pytest.raises(ValueError, match="evidence has 2 images"):
        next(animation_frames(image, explanation, None, several, torch.tensor([0])))
