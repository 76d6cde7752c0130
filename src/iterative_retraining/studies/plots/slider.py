"""A slider over pictures that works in a built page without a kernel and without a network."""

import base64
import html
import io
from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

PAGE = """<div id="{name}" class="frames">
<label>{label} <input type="range" min="0" max="{last}" value="0" aria-label="{label}" oninput="
  const frames = this.closest('.frames').querySelectorAll('img');
  frames.forEach((frame, i) => frame.hidden = i != this.value);
  this.nextElementSibling.value = frames[this.value].dataset.at"> <output>{first}</output></label>
{images}
</div>"""


def frames_slider(name: str, label: str, frames: Iterable[tuple[str, Figure]], alt: str) -> str:
    """HTML with one picture of ``frames``, pairs of position and figure, visible at a time; figures are closed."""
    images, positions = [], []
    for position, figure in frames:
        positions.append(html.escape(position))
        described = html.escape(f"{alt}; {label} {position}", quote=True)
        source = base64.b64encode(_png(figure)).decode()
        hidden = " hidden" if len(images) else ""
        images.append(f'<img data-at="{positions[-1]}" alt="{described}" src="data:image/png;base64,{source}"{hidden}>')
    words = {"name": html.escape(name, quote=True), "label": html.escape(label, quote=True), "first": positions[0]}
    return PAGE.format(last=len(images) - 1, images="\n".join(images), **words)


def _png(figure: Figure) -> bytes:
    """A small PNG: 64 colours are enough for maps of densities."""
    large, small = io.BytesIO(), io.BytesIO()
    figure.savefig(large, format="png", dpi=80)
    plt.close(figure)
    Image.open(large).convert("RGB").quantize(64).save(small, format="PNG", optimize=True)
    return small.getvalue()
