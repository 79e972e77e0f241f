"""Images of every format with known pixels, and hostile files."""

from __future__ import annotations

import gc
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from faithmap.data import AnimationWarning, ImageError, image_size, read_image

RED, GREEN, BLUE, BLACK, WHITE = [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]


def picture(mode: str, *colours: Any, palette: list[int] | None = None) -> Image.Image:
    """One row of pixels."""
    image = Image.new(mode, (len(colours), 1))
    if palette is not None:
        image.putpalette(palette)
    image.putdata(colours)
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: int = 32) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def png(size: tuple[int, int], depth: int, colour_type: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file put together chunk by chunk, for what PIL does not write."""
    header = struct.pack(">2I5B", *size, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(samples: bytes, **tags: int) -> bytes:
    """A little-endian TIFF file of one row and one strip, whose tags are short integers."""
    numbers = {"width": 256, "bits": 258, "photometric": 262, "per_pixel": 277, "extra": 338, "format": 339}
    entries = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(samples)}
    entries |= {numbers[name]: value for name, value in tags.items()}
    directory = b"".join(struct.pack("<HHIHxx", tag, 3, 1, entries[tag]) for tag in sorted(entries))
    start = struct.pack("<2sHI", b"II", 42, 8 + len(samples))
    return start + samples + struct.pack("<H", len(entries)) + directory + bytes(4)


def deep_png(*samples: int, transparent: int | None = None) -> bytes:
    extra = [] if transparent is None else [(b"tRNS", struct.pack(">H", transparent))]
    return png((len(samples), 1), 16, 0, b"\0" + struct.pack(f">{len(samples)}H", *samples), *extra)


def overflowing_gif(size: int) -> bytes:
    """A frame on a screen of one pixel."""
    data = encoded(noise(size=size), "GIF")
    return data[:6] + struct.pack("<2H", 1, 1) + data[10:]


def grey(*values: float) -> list[list[float]]:
    return [[value] * 3 for value in values]


EXACT: dict[str, tuple[Callable[[], bytes], Sequence[Sequence[float]]]] = {
    "rgb-png": (lambda: encoded(picture("RGB", (255, 0, 0), (0, 128, 255)), "PNG"), [RED, [0, 128 / 255, 1]]),
    "rgb-bmp": (lambda: encoded(picture("RGB", (255, 0, 0), (0, 128, 255)), "BMP"), [RED, [0, 128 / 255, 1]]),
    "rgb-tiff": (lambda: encoded(picture("RGB", (255, 0, 0), (0, 128, 255)), "TIFF"), [RED, [0, 128 / 255, 1]]),
    "rgb-webp": (lambda: encoded(picture("RGB", (255, 0, 0), (0, 0, 255)), "WEBP", lossless=True), [RED, BLUE]),
    "lzw-tiff": (lambda: encoded(picture("RGB", (255, 0, 0)), "TIFF", compression="tiff_lzw"), [RED]),
    "grey-png": (lambda: encoded(picture("L", 0, 51, 255), "PNG"), grey(0, 0.2, 1)),
    "grey-gif": (lambda: encoded(picture("L", 0, 51, 255), "GIF"), grey(0, 0.2, 1)),
    "1-bit-png": (lambda: encoded(picture("1", 0, 255), "PNG"), [BLACK, WHITE]),
    "1-bit-bmp": (lambda: encoded(picture("1", 0, 255), "BMP"), [BLACK, WHITE]),
    "palette-png": (lambda: encoded(picture("P", 1, 0, palette=[0, 0, 255, 255, 0, 0]), "PNG"), [RED, BLUE]),
    "palette-gif": (lambda: encoded(picture("P", 1, 0, palette=[0, 0, 255, 255, 0, 0]), "GIF"), [RED, BLUE]),
    "palette-some-alpha": (
        lambda: encoded(picture("P", 0, 1, palette=[0, 0, 0, 255, 0, 0]), "PNG", transparency=b"\x33\xff"),
        [[0.8] * 3, RED],
    ),
    "palette-one-clear": (
        lambda: encoded(picture("P", 0, 1, palette=[0, 0, 0, 255, 0, 0]), "GIF", transparency=0),
        [WHITE, RED],
    ),
    "rgba-png": (
        lambda: encoded(picture("RGBA", (255, 0, 0, 255), (0, 0, 0, 51), (9, 9, 9, 0)), "PNG"),
        [RED, [0.8] * 3, WHITE],
    ),
    "rgba-webp": (
        lambda: encoded(picture("RGBA", (255, 0, 0, 255), (0, 0, 0, 51)), "WEBP", lossless=True, exact=True),
        [RED, [0.8] * 3],
    ),
    "grey-alpha-png": (lambda: encoded(picture("LA", (0, 255), (0, 51)), "PNG"), grey(0, 0.8)),
    "grey-alpha-tiff": (lambda: encoded(picture("LA", (0, 255), (0, 51)), "TIFF"), grey(0, 0.8)),
    "premultiplied-tiff": (lambda: tiff(b"\x33\x33", per_pixel=2, extra=1), [WHITE]),
    "clear-colour-rgb": (
        lambda: encoded(picture("RGB", (255, 0, 0), (0, 255, 0)), "PNG", transparency=(255, 0, 0)),
        [WHITE, GREEN],
    ),
    "clear-colour-grey": (lambda: encoded(picture("L", 0, 51), "PNG", transparency=0), grey(1, 0.2)),
    "16-bit-png": (lambda: deep_png(0, 257, 300, 65535), grey(0, 1 / 255, 300 / 65535, 1)),
    "16-bit-png-clear-colour": (lambda: deep_png(0, 300, transparent=0), grey(1, 300 / 65535)),
    "16-bit-rgb-png": (lambda: png((1, 1), 16, 2, b"\0" + struct.pack(">3H", 65535, 0, 257 * 51)), [[1, 0, 0.2]]),
    "16-bit-tiff": (lambda: encoded(picture("I;16", 0, 300, 65535), "TIFF"), grey(0, 300 / 65535, 1)),
    "16-bit-big-endian-tiff": (
        lambda: encoded(Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 300, 65535)), "TIFF"),
        grey(300 / 65535, 1),
    ),
    "16-bit-white-is-zero-tiff": (
        lambda: tiff(struct.pack("<2H", 0, 300), width=2, bits=16, photometric=0),
        grey(1, 1 - 300 / 65535),
    ),
    "12-bit-tiff": (lambda: tiff(b"\xff\xf1\x00", width=2, bits=12), grey(1, 256 / 4095)),
    "float-tiff": (lambda: encoded(picture("F", 0.0, 0.3, 1.0), "TIFF"), grey(0, 0.3, 1)),
    "cmyk-tiff": (lambda: encoded(picture("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF"), [RED, BLACK]),
    "cut-exif": (lambda: encoded(picture("RGB", (255, 0, 0)), "PNG", exif=b"Exif\0\0II*\0"), [RED]),
    "broken-exif": (lambda: encoded(picture("RGB", (255, 0, 0)), "PNG", exif=b"Exif\0\0 neither II nor MM"), [RED]),
}


PILLOW = int(PIL.__version__.split(".")[0])
REFUSED_BEFORE = {"premultiplied-tiff": 13}
"""The first Pillow that can decode it; with an older one, as the page's server wants, the reader says that it cannot."""


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_exact(name: str) -> None:
    make, expected = EXACT[name]
    if REFUSED_BEFORE.get(name, 0) > PILLOW:
        with pytest.raises(ImageError, match="cannot be decoded"):
            read_image(make())
        return
    torch.testing.assert_close(read_image(make()), torch.tensor([[expected]]).float().permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (16, 16), (255, 0, 0)), RED),
        (Image.new("L", (16, 16), 51), [0.2] * 3),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), RED),
        (Image.new("CMYK", (16, 16), (0, 0, 0, 0)), WHITE),
    ],
    ids=["ycbcr", "grey", "adobe-cmyk", "adobe-cmyk-no-ink"],
)
def test_jpeg_colours(image: Image.Image, expected: list[float]) -> None:
    data = encoded(image, "JPEG", quality=100)
    assert (b"Adobe" in data) == (image.mode == "CMYK")
    torch.testing.assert_close(
        read_image(data), torch.tensor(expected).float().view(1, 3, 1, 1).expand(1, 3, 16, 16), atol=2 / 255, rtol=0
    )


STORED = [[1, 2], [3, 4], [5, 6]]
UPRIGHT = {
    1: STORED,
    2: [[2, 1], [4, 3], [6, 5]],
    3: [[6, 5], [4, 3], [2, 1]],
    4: [[5, 6], [3, 4], [1, 2]],
    5: [[1, 3, 5], [2, 4, 6]],
    6: [[5, 3, 1], [6, 4, 2]],
    7: [[6, 4, 2], [5, 3, 1]],
    8: [[2, 4, 6], [1, 3, 5]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {})],
    ids=["png", "webp", "tiff", "lzw-tiff", "jpeg"],
)
def test_exif_orientation(orientation: Any, kind: str, options: dict[str, Any]) -> None:
    cells = np.kron(np.array(STORED, dtype=np.uint8) * 40, np.ones((8, 8), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(Image.fromarray(cells).convert("RGB"), kind, exif=exif, **options))
    assert (image[0, 1, 4::8, 4::8] * 255 / 40).round().tolist() == UPRIGHT[orientation]


def test_16_bit_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    image = read_image(encoded(picture("I;16", 0, 65535), "PNG", exif=exif))
    assert image[0, 0].tolist() == [[1, 0]]


def test_result_is_contiguous_float32_that_may_be_written() -> None:
    for data in (encoded(noise(), "PNG"), deep_png(1, 2)):
        image = read_image(data)
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        image[0, 0] = 0.5
        assert (image[0, 1] != 0.5).all()


def test_webp_whose_size_holds_a_newline_is_recognised() -> None:
    padded = (encoded(noise(size=4), "WEBP", xmp=b"x" * count) for count in range(256))
    data = next(data for data in padded if b"\n" in data[4:8])
    assert read_image(data).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several_is_read_with_a_warning(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / "two\nlines"
    path.write_bytes(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    with pytest.warns(AnimationWarning, match=r"^[^\n]*two\\nlines: has several frames[^\n]*$") as caught:
        image = read_image(path)
    assert image[0, :, 0, 0].tolist() == RED
    assert caught[0].filename == __file__


def test_warning_made_an_error_is_not_an_image_error() -> None:
    frames = encoded(noise(), "GIF", save_all=True, append_images=[noise().rotate(90)])
    with pytest.raises(AnimationWarning):
        read_image(frames)


def bomb() -> bytes:
    return png((20_000, 10_000), 1, 0, bytes(10_000 * 2_501))


def hostile_text() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "A" * 4_000_000, zip=True)
    return info


NO_IMAGE = "; give a JPEG, PNG, WebP, GIF, BMP or TIFF file"
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", r"not an image that can be read \(it is empty\)" + NO_IMAGE),
    "text": (lambda: b"<html>\nno image\n</html>", r"not an image that can be read \(starts like text\)" + NO_IMAGE),
    "heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0", r"starts with b'.*ftypheic'\)" + NO_IMAGE),
    "sound": (lambda: b"RIFF\0\0\0\0WAVEfmt ", r"starts with b'RIFF"),
    "ppm": (lambda: encoded(noise(), "PPM"), r"not an image that can be read"),
    "magic-only": (lambda: b"\xff\xd8\xff", "a JPEG file that cannot be decoded"),
    "no-width": (lambda: png((0, 1), 8, 0, b"\0"), "a PNG file that cannot be decoded"),
    "jpeg-cut": (lambda: encoded(noise(), "JPEG")[:-200], r"a JPEG file that cannot be decoded \(.*truncated"),
    "png-cut": (lambda: encoded(noise(), "PNG")[:-200], r"a PNG file that cannot be decoded \(.*truncated"),
    "webp-cut": (lambda: encoded(noise(), "WEBP")[:-200], "a WEBP file that cannot be decoded"),
    "gif-cut": (lambda: encoded(noise("P"), "GIF")[:-200], "a GIF file that cannot be decoded"),
    "bmp-cut": (lambda: encoded(noise(), "BMP")[:-200], r"a BMP file that cannot be decoded \(.*truncated"),
    "tiff-cut": (lambda: encoded(noise(), "TIFF")[:-200], r"a TIFF file that cannot be decoded \(.*truncated"),
    "png-flipped": (lambda: encoded(noise(), "PNG").replace(b"IDAT", b"IDAU"), "a PNG file that cannot be decoded"),
    "png-text-bomb": (lambda: encoded(noise(), "PNG", pnginfo=hostile_text()), "a PNG file.*too large"),
    "png-bomb": (bomb, r"20000 x 10000 pixels are more than max_pixels=100000000; give a smaller"),
    "float-too-bright": (lambda: encoded(picture("F", 0.0, 1.5), "TIFF"), r"samples outside \[0, 1\].*8-bit PNG"),
    "float-not-a-number": (lambda: encoded(picture("F", 0.0, float("nan")), "TIFF"), r"samples outside \[0, 1\]"),
    "signed-16-bit": (lambda: tiff(b"\1\0", bits=16, format=2), "signed or 32-bit"),
    "32-bit": (lambda: encoded(picture("I", 0, 70_000), "TIFF"), "signed or 32-bit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_file_problem_and_remedy_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "cat.jpg"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert "; give " in str(caught.value)


def test_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    data = bomb()
    assert len(data) < 50_000
    with pytest.raises(ImageError, match="max_pixels"):
        read_image(data)


def test_max_pixels_is_inclusive() -> None:
    data = encoded(noise(size=4), "PNG")
    assert read_image(data, max_pixels=16).shape == (1, 3, 4, 4)
    with pytest.raises(ImageError, match="4 x 4 pixels"):
        read_image(data, max_pixels=15)


def test_max_bytes_is_inclusive_for_bytes_and_files(tmp_path: Path) -> None:
    data = encoded(noise(size=4), "PNG")
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        assert read_image(source, max_bytes=len(data)).shape == (1, 3, 4, 4)
        with pytest.raises(ImageError, match=f"{len(data)} bytes are more than max_bytes={len(data) - 1}; give a smaller"):
            read_image(source, max_bytes=len(data) - 1)


def test_oversized_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    monkeypatch.setattr(Path, "open", lambda *args: pytest.fail("the file was opened"))
    with pytest.raises(ImageError, match="max_bytes"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (encoded(noise(), "JPEG"), 32),
        (encoded(noise(), "PNG"), 32),
        (encoded(noise(), "BMP"), 32),
        (encoded(noise(), "GIF"), 32),
        (overflowing_gif(10), 10),
        (encoded(noise(size=10), "TIFF"), 10),
        (encoded(noise(size=10), "WEBP"), 10),
    ],
    ids=["jpeg", "png", "bmp", "gif", "overflowing-gif", "tiff", "webp"],
)
def test_limit_of_pil_does_not_apply(data: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL warns above its limit, here 64 pixels, which this run makes an error, and refuses at twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    filters = list(warnings.filters)
    assert read_image(data).shape == (1, 3, size, size)
    assert warnings.filters == filters
    assert Image.MAX_IMAGE_PIXELS == 64
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


LIMITED_BY_PIL = {"overflowing-gif": overflowing_gif(32), "tiff": encoded(noise(), "TIFF")}
"""Images on which Pillow's own limit of pixels applies; to WebP since Pillow 13."""
if PILLOW >= 13:
    LIMITED_BY_PIL["webp"] = encoded(noise(), "WEBP")


@pytest.mark.parametrize("data", LIMITED_BY_PIL.values(), ids=LIMITED_BY_PIL)
def test_error_of_pil_becomes_an_image_error(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    with pytest.raises(ImageError, match=r"1024 pixels\) exceeds limit of 128 pixels"):
        read_image(data)


@pytest.mark.parametrize("error", [OSError, SyntaxError, struct.error, zlib.error, EOFError, MemoryError, KeyError])
def test_any_error_of_a_decoder_becomes_an_image_error(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PngImageFile) -> None:
        raise error("first line\nsecond line")

    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"^image bytes: .*second line.*$") as caught:
        read_image(encoded(noise(), "PNG"))
    assert isinstance(caught.value.__cause__, error)


def test_interruption_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: PngImageFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(encoded(noise(), "PNG"))


def test_hostile_name_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[2J\u202egpj.jpg"
    path.write_text("no image")
    for source in (path, tmp_path / "missing\r\n.jpg"):
        with pytest.raises(ImageError) as caught:
            read_image(source)
        assert str(caught.value).isprintable()
    with pytest.raises(ImageError, match=r"a\\n\\x1b\[2J\\u202egpj\.jpg: not an image"):
        read_image(path)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(it is a folder\); give the path of an image file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=r"nul\\x00\.jpg: cannot be read"):
        read_image("nul\0.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name here")
def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="it is a pipe, socket or device"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(sys.platform == "win32", reason="no list of open files")
def test_no_file_stays_open(tmp_path: Path) -> None:
    good, cut, tiff_file = tmp_path / "good.png", tmp_path / "cut.png", tmp_path / "pages.tiff"
    good.write_bytes(encoded(noise(), "PNG"))
    cut.write_bytes(good.read_bytes()[:-200])
    tiff_file.write_bytes(encoded(noise(), "TIFF", compression="tiff_lzw"))
    initial = len(list(Path("/dev/fd").iterdir()))
    kept = [read_image(good), read_image(tiff_file)]
    with pytest.raises(ImageError) as caught:
        read_image(cut)
    assert len(list(Path("/dev/fd").iterdir())) == initial
    del kept, caught
    gc.collect()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_files_give_an_image_or_a_refusal(kind: str) -> None:
    random = np.random.default_rng(1)
    data = np.frombuffer(encoded(noise(size=12), kind), dtype=np.uint8)
    refusals = []
    for _ in range(100):
        damaged = data[: random.integers(len(data) // 2, len(data) + 1)].copy()
        damaged[random.integers(0, len(damaged), 3)] = random.integers(0, 256, 3)
        try:
            image = read_image(damaged.tobytes(), max_pixels=10**6)
        except ImageError as error:
            refusals.append(str(error))
        else:
            assert 0 <= image.min() <= image.max() <= 1
    assert len(refusals) > 20
    assert all(message.isprintable() for message in refusals)


def test_size_from_the_header_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        for kind in ("JPEG", "TIFF", "PNG"):
            path = tmp_path / f"{orientation}.{kind}"
            Image.new("RGB", (3, 5)).save(path, kind, exif=exif)
            assert image_size(path) == tuple(read_image(path).shape[-2:])
    (tmp_path / "text").write_text("text")
    with pytest.raises(ImageError, match="not an image that can be read"):
        image_size(tmp_path / "text")
