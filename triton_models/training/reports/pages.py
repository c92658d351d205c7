"""Self-contained HTML pages: no script, no font, no picture from elsewhere, so that it opens anywhere for ever."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2rem }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .2rem .7rem; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr { border-bottom: 1px solid #8884 }
.fault { color: #b3261e; font-weight: 600 } .good { color: #1b7f3b } .remark { color: #946200 }
figure { margin: 1rem 0; overflow-x: auto } figure svg { max-width: 100%; height: auto; background: #fff }
img { display: inline-block; margin: 2px; border-radius: 3px } figcaption { color: #777; font-size: 13px }
code { font-size: 13px; overflow-wrap: anywhere }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """An HTML document of `parts`, each HTML already."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """A line of text; `kind`: fault, remark or good."""
    return f'<p class="{kind}">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    """A table; numbers stand to the right, floats with 4 digits."""

    def cell(value: str | int | float) -> str:
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        return f'<td class="n">{value:.4f}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'

    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"


def pictures(crops: NDArray[np.uint8], caption: str) -> str:
    """A row of RGB images `[N, H, W, 3]`, inside the page."""
    images = []
    for crop in crops:
        encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        data = base64.b64encode(encoded.tobytes()).decode()
        images.append(
            f'<img alt="{escape(caption)}" width="{crop.shape[1]}" height="{crop.shape[0]}" '
            f'src="data:image/jpeg;base64,{data}">'
        )
    return f"<figure>{''.join(images)}<figcaption>{escape(caption)}</figcaption></figure>"


def drawing(svg: str, caption: str) -> str:
    """An SVG element, inside the page."""
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{escape(caption)}</figcaption></figure>"
