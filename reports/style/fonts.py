"""The fonts that figures are drawn with, and the characters that none of them has."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.font_manager import FontProperties, fontManager, get_font

FIRST_FONT = "DejaVu Sans"
# For labels in scripts that the first font lacks, by the names of Linux, macOS and Windows.
FALLBACK_FONTS = (
    *(f"Noto Sans CJK {place}" for place in ("SC", "TC", "JP", "KR")),
    *(f"Noto Sans {place}" for place in ("SC", "TC", "JP", "KR")),
    *(f"Source Han Sans {place}" for place in ("SC", "TC")),
    *("Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAGothic", "IPAexGothic", "TakaoGothic", "NanumGothic", "Unifont"),
    *("Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Microsoft JhengHei", "Yu Gothic", "Malgun Gothic", "SimHei"),
)


def font_families() -> list[str]:
    """Names of installed fonts; a character is drawn with the first one that has it."""
    installed = {font.name for font in fontManager.ttflist}
    return [FIRST_FONT, *(name for name in FALLBACK_FONTS if name in installed)]


def missing_characters(texts: Iterable[str]) -> str:
    """The printable characters of `texts` that no font of `font_families` has, each once, sorted."""
    wanted = {character for text in texts for character in text if character.isprintable()}
    for name in font_families():
        if not wanted:
            break
        known = get_font(fontManager.findfont(FontProperties(family=[name]))).get_charmap()
        wanted = {character for character in wanted if ord(character) not in known}
    return "".join(sorted(wanted))
