"""Reference pictures of the page: one made-up report, at two widths, in light, in dark and as it is printed.

    python -m tests.reports.screenshots

renews them in tests/reports/screenshots/; look at each before committing it. They are compared shrunk, so that other
versions of a browser or of a font, which move letters by a pixel, count for little.
"""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.bench.synthetic_records import SyntheticNetwork, write_grid
from reports.build import build_report
from tests.reports.browser import open_browser, open_report, show_as

FOLDER = Path(__file__).with_name("screenshots")
LOOKS = {"light": ("light", "screen"), "dark": ("dark", "screen"), "print": ("light", "print")}
A4 = 703  # CSS pixels between its margins
SHOTS = [*((width, look) for width in (390, 1400) for look in LOOKS), (A4, "print")]
TALLEST = 5000  # CSS pixels from the top that are compared
_COLOURS = 128
_BLOCK = 10  # CSS pixels that are averaged before pictures are compared


def reference(width: int, look: str) -> Path:
    return FOLDER / f"page-{width}-{look}.png"


def build_page(folder: Path) -> Path:
    """The page of three methods on two networks with three seeds; the same on every host."""
    networks = [SyntheticNetwork("regional", 500e6, 0.02), SyntheticNetwork("transatlantic", 50e6, 0.1)]
    for method, speed in {"ddp": 1.0, "diloco": 0.8, "photon": 0.7}.items():
        write_grid(folder / "runs", (method,), networks, (1, 2, 3), steps=120, speed=speed, target=2.2, suite="example")
    build_report([folder / "runs"], folder / "report")
    return folder / "report" / "index.html"


@contextmanager
def opened_page() -> Iterator[Any]:
    """A browser that shows the page."""
    with tempfile.TemporaryDirectory(prefix="longhaul-screenshots-") as temporary:
        page = build_page(Path(temporary) / "records")
        with open_browser(Path(temporary) / "profile") as browser:
            open_report(browser, page)
            yield browser


def take(browser: Any, width: int, look: str) -> Image.Image:
    """The page at a width, from its top."""
    scheme, media = LOOKS[look]
    show_as(browser, width, TALLEST, scheme, media)
    height = min(TALLEST, browser.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    asked = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    data = base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"])
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(shown: Image.Image, expected: Image.Image) -> float:
    """The share of blocks that look different; 1 if the page's height changed by more than a tenth."""
    if shown.width != expected.width or abs(shown.height - expected.height) > 0.1 * expected.height:
        return 1.0
    blocks = [_blocks(picture) for picture in (shown, expected)]
    rows = min(len(one) for one in blocks)
    apart = np.abs(blocks[0][:rows] - blocks[1][:rows]).max(axis=2)
    return float((apart > 40).mean())


def _blocks(picture: Image.Image) -> NDArray[np.float64]:
    size = (picture.width // _BLOCK, picture.height // _BLOCK)
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), float)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with opened_page() as browser:
        for width, look in SHOTS:
            take(browser, width, look).quantize(_COLOURS, kmeans=4, dither=Image.Dither.NONE).save(
                reference(width, look), optimize=True
            )
            print(reference(width, look))


if __name__ == "__main__":
    main()
