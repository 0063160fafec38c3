"""Draws docs/unfolded.svg, the picture of the unfolded networks.  `python docs/draw_unfolded.py`"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

plt.rcParams["svg.hashsalt"] = "lfjax"
figure, axis = plt.subplots(figsize=(9.6, 4.4))
axis.set_xlim(0, 96)
axis.set_ylim(0, 44)
axis.set_axis_off()


def box(x: float, y: float, w: float, h: float, text: str, colour: str) -> None:
    """A labelled box."""
    style = "round,pad=0.2,rounding_size=1"
    axis.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=colour, edgecolor="#444444", linewidth=0.8))
    axis.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=7.3)


def arrow(x: float, y: float, to_x: float, to_y: float, style: str = "-|>", dash: str = "-") -> None:
    """An arrow."""
    line = {"arrowstyle": style, "color": "#444444", "linewidth": 1, "linestyle": dash, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (to_x, to_y), (x, y), arrowprops=line)


box(1, 27, 12, 8, "light field\ny / rms(y)", "#dfe8f5")
for x, name in ((20, "layer 1"), (37, "layer 2"), (60, "layer K")):
    box(x, 27, 13, 8, f"{name}\nReLU(x - τ g - τ λ)", "#f7e6c8")
axis.text(55, 31, "...", ha="center", va="center", fontsize=14)
box(80, 27, 14, 8, "volume (z, y, x)\ns × s per lenslet", "#dff0dd")
for a, b in ((13.3, 19.7), (33.3, 36.7), (50.3, 53), (57, 59.7), (73.3, 79.7)):
    arrow(a, 31, b, 31)
axis.plot([7, 7, 66.5], [35.3, 39, 39], color="#444444", lw=1)
for x in (26.5, 43.5, 66.5):
    arrow(x, 39, x, 35.3)
axis.text(36, 40, "the data: y itself, its views, or V codes  c ← W0 c", ha="center", fontsize=8)
axis.text(1, 22.5, "the data term g is one of three", fontsize=9, weight="bold")
box(1, 13, 28, 7, "Physics\ng = Hᵀ(Hx - y), H fixed or learned", "#ffffff")
box(33, 13, 28, 7, "Convolutional\ng = B(Ax - y), short learned kernels", "#ffffff")
box(65, 13, 29, 7, "Compressed\ng = W2 x - W1 c, through V channels", "#ffffff")
axis.text(1, 9.5, "losses", fontsize=9, weight="bold")
box(1, 1, 28, 7, "label: |x - x₂ₚ|² / |x₂ₚ|²\none two-photon sample", "#f4f4f4")
box(33, 1, 28, 7, "light field: |Hx - y|² / |y|²\nunlabelled movies", "#f4f4f4")
box(65, 1, 29, 7, "adversary: does x look like x₂ₚ?\n3-D patch critic, unlabelled movies", "#f4f4f4")
figure.savefig(Path(__file__).with_name("unfolded.svg"), bbox_inches="tight", metadata={"Date": None})
