"""The clock of a movie, and the files that hold it, in OME-XML."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from lfjax.io.movie_source import SECONDS, clock


def ome_clock(xml: str, image: int, channel: int, count: int) -> tuple[float | None, np.ndarray | None]:
    """Frame interval and times in seconds, from TimeIncrement of an image and DeltaT of its planes.

    Args:
        xml: OME-XML.
        image: number of the image.
        channel: number of the channel.
        count: number of frames.

    Returns:
        See `lfjax.io.movie_source.clock`.
    """
    found = ElementTree.fromstring(xml).findall(".//{*}Pixels")
    if image >= len(found):
        return None, None
    pixels = found[image]
    stated = _seconds(pixels, "TimeIncrement")
    times = np.full(count, np.nan)
    for plane in pixels.iterfind("{*}Plane"):
        t, c, z = (int(plane.get(name, 0)) for name in ("TheT", "TheC", "TheZ"))
        if c == channel and z == 0 and 0 <= t < count:
            moment = _seconds(plane, "DeltaT")
            times[t] = np.nan if moment is None else moment
    return clock(stated, times, count)


def ome_files(xml: str) -> list[str]:
    """Names of other files that an OME-TIFF says its planes are in."""
    root = ElementTree.fromstring(xml)
    own = root.get("UUID")
    names = {uuid.get("FileName", "") for uuid in root.iterfind(".//{*}TiffData/{*}UUID") if own is None or uuid.text != own}
    return sorted(names - {""})


def ome_master(xml: str) -> str | None:
    """Name of the file that holds the metadata, if this file only holds planes (the element BinaryOnly)."""
    only = ElementTree.fromstring(xml).find("{*}BinaryOnly")
    return None if only is None else only.get("MetadataFile")


def _seconds(element: ElementTree.Element, name: str) -> float | None:
    value, unit = element.get(name), SECONDS.get(element.get(f"{name}Unit", "s"))
    return None if value is None or unit is None else float(value) * unit
