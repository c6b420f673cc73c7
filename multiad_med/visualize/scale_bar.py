"""The scale of the map's colours, for a page."""

from __future__ import annotations

import numpy as np

from multiad_med.visualize.colours import SHOWN, heat_colours
from multiad_med.visualize.markup import Html, element

__all__ = ["scale_bar"]


def scale_bar() -> Html:
    """The colours of the map from 0.4 on, with the threshold."""
    left, width, top, height, steps = 10, 300, 4, 12, 50
    low, high = SHOWN
    colours = heat_colours(np.linspace(low, high, steps, dtype=np.float32))
    # On the grey of an image, as in the overlays.
    shown = (
        (255 * (0.45 * (1 - colours[:, 3:]) + colours[:, :3] * colours[:, 3:])).round().astype(int)
    )
    boxes = [
        element(
            "rect",
            x=f"{left + i * width // steps}",
            y=f"{top}",
            width=f"{width // steps}",
            height=f"{height}",
            fill="#{:02x}{:02x}{:02x}".format(*colour),
        )
        for i, colour in enumerate(shown.tolist())
    ]
    at = left + (0.5 - low) / (high - low) * width
    texts = [
        (left, "0.4", "start"),
        (at, "0.5 threshold", "middle"),
        (left + width, "0.75 +", "end"),
    ]
    return element(
        "svg",
        *boxes,
        element(
            "line",
            x1=f"{at:g}",
            x2=f"{at:g}",
            y1=f"{top - 3:g}",
            y2=f"{top + height + 3:g}",
            stroke="currentColor",
            stroke_width="1.5",
        ),
        *(
            element("text", text, x=f"{x:g}", y="31", text_anchor=anchor, fill="currentColor")
            for x, text, anchor in texts
        ),
        viewBox="0 0 320 36",
        class_="scale",
        shape_rendering="crispEdges",
        role="img",
        aria_label="Colours of the anomaly map: transparent below 0.4, the threshold at 0.5, brightest "
        "from 0.75 on.",
    )
