from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faithmap.baselines import make_baseline
from faithmap.explanation import Explanation
from faithmap.metrics.functional import deletion_insertion
from faithmap.viz import animation
from faithmap.viz.animation import film
from faithmap.viz.encoding import write_film
from faithmap.viz.figure import to_bytes
from faithmap.viz.games import GAMES
from faithmap.viz.screen import Screen

SCALE = 4  # 40 rows are enlarged to 160


def pictures(frame: np.ndarray) -> list[np.ndarray]:
    """Deletion's and insertion's picture, at the image's own size."""
    return [frame[28 : 28 + 160 : SCALE, left : left + 240 : SCALE] for left in (12, 12 + 240 + 12)]


def read(path) -> tuple[list[np.ndarray], list[int], int]:
    with Image.open(path) as file:
        frames, durations = [], []
        for i in range(file.n_frames):
            file.seek(i)
            frames.append(np.asarray(file.convert("RGB")))
            durations.append(file.info["duration"])
        return frames, durations, file.info["loop"]


def test_first_and_last_frames_are_image_and_baseline(image, why, proof):
    first, last = film(image, why, None, proof, torch.tensor([0, 50]))
    blurred = to_bytes(make_baseline("blur", image))
    for frame, expected in ((first, (to_bytes(image), blurred)), (last, (blurred, to_bytes(image)))):
        for shown, wanted in zip(pictures(frame), expected, strict=True):
            assert np.abs(shown.astype(int) - wanted).max() <= 1


def test_every_frame_is_scored_as_the_curves_say(model, image, why, proof):
    for moment, frame in zip((3, 20, 41), film(image, why, None, proof, torch.tensor([3, 20, 41])), strict=True):
        for shown, curve in zip(pictures(frame), (proof.deletion, proof.insertion), strict=True):
            tensor = torch.from_numpy(shown.copy()).permute(2, 0, 1)[None].float() / 255
            assert float(model(tensor).softmax(1)[0, 1]) == pytest.approx(float(curve.scores[0, moment]), abs=0.002)


def test_curves_grow_with_the_frames(proof):
    screen = Screen(proof, (160, 240), "probability")
    blank = {game: np.full((160, 240, 3), 255, np.uint8) for game in GAMES}
    before = screen.frame(10, blank)
    after = screen.frame(30, blank)
    assert bool((before != after).any())
    for game, curve in zip(GAMES, (proof.deletion, proof.insertion), strict=True):
        x, y = screen.moving[game].line.get_data()
        np.testing.assert_array_equal(x, curve.fractions[:31].double())
        np.testing.assert_array_equal(y, curve.scores[0, :31].double())
        assert screen.moving[game].caption.get_text() == f"{game}  {float(curve.scores[0, 30]):.3f}"
    np.testing.assert_array_equal(screen.frame(10, blank), before)


@pytest.mark.parametrize(("suffix", "count"), [(".gif", 51), (".webp", 6), (".GIF", 3)])
def test_file_has_the_frames_and_repeats(tmp_path, image, why, proof, suffix, count):
    path = tmp_path / f"film{suffix}"
    animation(image, why, "blur", proof, path, frames=count, seconds=0.1 * count)
    frames, durations, loop = read(path)
    assert len(frames) == count
    assert loop == 0
    assert durations == [600, *[100] * (count - 2), 600]
    step = 50 // (count - 1)
    for i, expected in zip((0, 1, count - 1), film(image, why, "blur", proof, torch.tensor([0, step, 50])), strict=True):
        assert frames[i].shape == expected.shape
        assert np.abs(frames[i].astype(int) - expected).mean() < 8


def test_gif_of_a_quiet_photograph_is_close_and_small(tmp_path, model):
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    image = torch.stack([rows, columns, 0.5 * (rows + columns)])[None]
    why = Explanation(torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0)), (224, 224), target=torch.tensor([0]))
    proof = deletion_insertion(model, image, why, steps=25, baseline="grey")
    animation(image, why, None, proof, tmp_path / "a.gif", frames=13)
    assert (tmp_path / "a.gif").stat().st_size < 500_000
    frames, _, _ = read(tmp_path / "a.gif")
    for frame, expected in ((frames[0], to_bytes(image)), (frames[-1], to_bytes(torch.full_like(image, 0.5)))):
        error = np.abs(frame[28 : 28 + 224, 12 : 12 + 224].astype(int) - expected)
        assert error.mean() < 6
        assert error.max() < 40


def test_paper_stays_white_beside_nearly_white_photographs(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(240, 255, (4, 64, 64, 3), dtype=np.uint8)
    frames[:, :8] = 255
    write_film(list(frames), [100] * 4, tmp_path / "a.gif")
    for shown, frame in zip(read(tmp_path / "a.gif")[0], frames, strict=True):
        assert shown[:8].min() == 255
        assert np.abs(shown.astype(int) - frame).mean() < 4


def test_few_frames_are_spread_over_the_curves(tmp_path, image, why, proof):
    animation(image, why, None, proof, tmp_path / "a.webp", frames=3, seconds=1.2)
    frames, durations, _ = read(tmp_path / "a.webp")
    expected = list(film(image, why, None, proof, torch.tensor([0, 25, 50])))
    assert durations == [900, 400, 900]
    assert [np.abs(f.astype(int) - e).mean() < 8 for f, e in zip(frames, expected, strict=True)] == [True] * 3


def test_same_file_twice(tmp_path, image, why, proof):
    for suffix in (".gif", ".webp"):
        for name in "ab":
            animation(image, why, None, proof, tmp_path / (name + suffix), frames=3)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_pixels_are_played_where_the_proof_did(model, image, why):
    """Half of the 2400 pixels are deleted at point 20 of 40; the zero of this model, which normalises nothing, is black."""
    proof = deletion_insertion(model, image, why, protocol="rise")
    (frame,) = film(image, why, None, proof, torch.tensor([20]))
    deleted, _ = pictures(frame)
    assert (deleted.sum(axis=-1) == 0).sum() == pytest.approx(1200, abs=2)
    (frame,) = film(image, why, "white", proof, torch.tensor([20]))
    assert (pictures(frame)[0] == 255).all(axis=-1).sum() == pytest.approx(1200, abs=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "film.mp4"}, "ends in .gif or .webp"),
        ({"frames": 1}, "give at least 2"),
        ({"why": Explanation(torch.rand(1, 7, 7), (40, 60))}, "proof is of 10 x 10 cells, the map of 7 x 7"),
        ({"why": Explanation(torch.ones(1, 10, 10), (40, 60))}, "ranks nothing"),
        ({"image": torch.zeros(2, 3, 40, 60)}, "2 images"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, image, why, proof, change, message):
    given = {"image": image, "why": why, "baseline": None, "proof": proof, "path": "film.gif", **change}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message):
        animation(**given)
    assert not list(tmp_path.iterdir())


def test_proof_of_several_images(image, why, proof):
    several = replace(proof, deletion=replace(proof.deletion, scores=proof.deletion.scores.repeat(2, 1)))
    with pytest.raises(ValueError, match="proof holds 2 images"):
        next(film(image, why, None, several, torch.tensor([0])))
