"""Pictures of the page: every tab with a result, at desktop and phone width, light and dark.

    python benchmarks/app_screenshots.py --out docs/images

The page of the embedded model is opened with a small run of both bundled photographs and parts of them, and clicked through in
headless Chromium; playwright has to be installed. ``--only explain`` takes one tab, ``--all`` keeps all twenty pictures and not
only those of the docs, which are the four of the first tab and one of each other. Pictures have 256 colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from app_speed import opened
from PIL import Image

import faithmap as fm

WIDTHS = {"desktop": 1280, "phone": 390}
LONGEST = {"browse": 1240}
"""Pixels of a picture from top to bottom, so that its file stays small."""

TABS = {
    "explain": "Explain",
    "contrast": "Why this and not that",
    "compare": "Compare",
    "saturation": "Saturation",
    "browse": "Browse the benchmark",
}
IN_DOCS = {("contrast", "desktop", "light"), ("compare", "desktop", "dark"), ("saturation", "phone", "light")} | {
    ("browse", "desktop", "light")
}
COMPARED = ("rank descent", "Grad-CAM", "Integrated Gradients")
ENTRIES = "rank_descent@14"

SPECIFICATION = """name = "bundled photographs"
models = [{ name = "efficientnet_lite0" }]
data = { kind = "folder", path = "photographs" }
metrics = [{ name = "deletion_insertion" }]

[[methods]]
name = "rank_descent"
resolution = 14

[[methods]]
name = "gradcam"

[[methods]]
name = "integrated_gradients"

[[methods]]
name = "random_map"
resolution = 14
"""


def make_run(place: Path) -> Path:
    """Run a small benchmark; returns its folder."""
    folder = place / "photographs"
    folder.mkdir()
    for name in ("chelsea", "coffee"):
        photo = Image.open(fm.sample_photo(name))
        across, down = photo.size
        photo.save(folder / f"{name}.jpg")
        photo.crop((0, 0, 2 * across // 3, down)).save(folder / f"{name} left.jpg")
        photo.crop((across // 3, 0, across, down)).save(folder / f"{name} right.jpg")
    (place / "run.toml").write_text(SPECIFICATION)
    command = [sys.executable, "-m", "faithmap", "bench", "run", "run.toml", "--out", "run"]
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return place / "run"


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def answered(tab: Any, name: str) -> None:
    """Open a tab, start its job, and wait for the result."""
    if not tab.get_by_role("tab", name=TABS[name]).is_visible():
        tab.locator(".overflow-menu > button").first.click()
        tab.locator(".overflow-dropdown button", has_text=TABS[name]).click()
    else:
        tab.get_by_role("tab", name=TABS[name]).click()
    if name == "browse":
        tab.locator(".faithmap-sheet li button").first.click()
        tab.wait_for_selector(".run-viewer .faithmap-viewer[data-ready]")
    else:
        if name == "compare":
            choose(tab, COMPARED)
            tab.locator("#compare-entries").locator("input, textarea").fill(ENTRIES)
        tab.click(f"#{name}-start")
        tab.wait_for_function(f"document.querySelector('#{name}-status p').textContent.startsWith('done')")
    tab.wait_for_timeout(1500)
    tab.evaluate("window.scrollTo(0, 0); document.activeElement?.blur()")
    tab.wait_for_timeout(300)


def choose(tab: Any, methods: tuple[str, ...]) -> None:
    """Remove all other methods from the comparison."""
    tokens = tab.locator("#compare-methods .token")
    for i in reversed(range(tokens.count())):
        if tokens.nth(i).inner_text().strip() not in methods:
            tokens.nth(i).locator(".token-remove").click()


def picture(tab: Any, out: Path, longest: int) -> None:
    """The page from the top, as far down as a picture goes."""
    image = Image.open(BytesIO(tab.screenshot(full_page=True))).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, longest)))
    image.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}  {image.width} x {image.height}  {out.stat().st_size / 1024:.0f} KB", flush=True)


def main() -> None:
    """Open the page, click, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", choices=list(TABS), action="append")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--run", type=Path, help="a run to browse, instead of one that is made first")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    names = given.only or list(TABS)
    with tempfile.TemporaryDirectory() as made:
        run = given.run or make_run(Path(made))
        with opened(2, "--run", str(run)) as (address, _), chromium() as browser:
            for width, pixels in WIDTHS.items():
                for scheme in ("light", "dark"):
                    wanted = [n for n in names if given.all or n == "explain" or (n, width, scheme) in IN_DOCS]
                    tab = browser.new_page(viewport={"width": pixels, "height": 900}, color_scheme=scheme)
                    tab.set_default_timeout(240_000)
                    tab.goto(address)
                    tab.wait_for_selector("#guesses label")
                    for name in wanted:
                        answered(tab, name)
                        picture(tab, given.out / f"app-{name}-{width}-{scheme}.png", LONGEST.get(name, 2900))
                    tab.close()


if __name__ == "__main__":
    main()
