"""Movies in Zarr 2 and 3: arrays, groups, OME-Zarr 0.1 to 0.5, alone or as bioformats2raw lays several images out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from lfjax.errors import FileError
from lfjax.io.claims import array_bytes, require_claim
from lfjax.io.movie_source import SECONDS, Choice, Layout, Source, check_axes, clock, lay_out, missing_frames
from lfjax.io.ome import ome_clock
from lfjax.io.zarr_store import Inside, checked

LETTERS = {"time": "t", "frame": "t", "frames": "t", "channel": "c", "row": "y", "col": "x", "column": "x"}


class Found(NamedTuple):
    """An array of a store.

    Attributes:
        array: opened.
        axes: letters, "?" for an axis of another name; None: the store does not tell.
        frame_s: time from frame to frame in seconds. None: unknown.
    """

    array: zarr.Array[Any]
    axes: str | None
    frame_s: float | None


def open_source(path: Path, choice: Choice) -> Source:
    """Open a Zarr store as a movie; see `lfjax.io.open_movie`."""
    choice.only(path, "dataset", "axes", "channel", "series", "follow_links")
    inside = Inside(path, choice.follow_links)
    node = zarr.open(store=str(path), mode="r")
    array, axes, frame_s = _find(path, node, choice)
    array = checked(array)
    if array.dtype.kind not in "uif":
        raise FileError(f"{path}: values of type {array.dtype}; expected integers or floats")
    layout = lay_out(path, _axes(path, array, axes, choice.axes), array.shape, choice.channel)
    missing = _missing(path, array, layout, inside)
    require_claim(path, array_bytes(array.chunks, array.dtype.itemsize), stored=inside.stored, what="a chunk")
    times_s = None
    if frame_s is None:
        frame_s, times_s = _bioformats_clock(path, choice, layout.movie_shape[0])
    return Source(
        shape=layout.movie_shape,
        dtype=array.dtype,
        read=lambda numbers: layout.arrange(np.asarray(array[layout.select(numbers)])),
        frame_s=frame_s,
        times_s=times_s,
        files=(path,),
        missing=missing,
        stored=inside.stored,
    )


def _axes(path: Path, array: zarr.Array[Any], told: str | None, asked: str | None) -> str:
    """Letters of the axes: as asked, as the store tells, or t, y, x."""
    if asked is not None:
        return check_axes(asked, array.ndim, f"shape {array.shape}")
    if told is not None and len(told) == array.ndim and {"y", "x"} <= set(told):
        return told
    usual = {2: "yx", 3: "tyx"}.get(array.ndim)
    if usual is None and array.ndim > 3 and set(array.shape[1:-2]) == {1}:
        usual = "t" + (array.ndim - 3) * "?" + "yx"
    if usual is None:
        raise FileError(f"{path}: array of shape {array.shape}; name its axes with axes= (--axes), 'tcyx' for example")
    return usual


def _find(path: Path, node: Any, choice: Choice) -> Found:
    """The array that the choice means."""
    if choice.dataset is not None:
        found = node.get(choice.dataset) if isinstance(node, zarr.Group) else None
        if found is None:
            raise FileError(f"{path}: holds {_listed(node)}; expected {choice.dataset!r}, as in dataset=")
        return _find(path, found, choice._replace(dataset=None))
    if isinstance(node, zarr.Array):
        names: Any = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS")
        return Found(node, None if names is None else "".join(map(_letter, names)), None)
    about = _ome(node)
    if "plate" in about:
        raise FileError(f"{path}: a plate of wells; choose a field with dataset= (--dataset), 'A/1/0' for example")
    if about.get("multiscales"):
        return _image(path, node, about["multiscales"], choice.series)
    images = sorted((name for name, group in node.groups() if name.isdigit() and _ome(group).get("multiscales")), key=int)
    if images:
        if choice.series is None and len(images) > 1:
            each = "; ".join(f"{name}: {_shape(node[name])}" for name in images)
            raise FileError(f"{path}: {len(images)} images ({each}); choose one with series= (--series)")
        if choice.series is not None and str(choice.series) not in images:
            raise FileError(f"{path}: series={choice.series}; expected one of {', '.join(images)}")
        group = node[images[0] if choice.series is None else str(choice.series)]
        return _image(path, group, _ome(group)["multiscales"], None)
    arrays = {name: one for name, one in node.arrays() if one.dtype.kind in "uif"}
    fitting = ["frames"] if "frames" in arrays else [name for name, one in arrays.items() if one.ndim == 3]
    if len(fitting) != 1:
        raise FileError(f"{path}: holds {_listed(node)}; choose one with dataset= (--dataset)")
    return _find(path, arrays[fitting[0]], choice)


def _image(path: Path, group: Any, scales: list[Any], number: int | None) -> Found:
    """The finest level of an OME-Zarr image."""
    if number is None and len(scales) > 1:
        raise FileError(f"{path}: {len(scales)} images (multiscales); choose one with series= (--series)")
    if not 0 <= (number or 0) < len(scales):
        raise FileError(f"{path}: series={number}; expected 0 to {len(scales) - 1}")
    about = scales[number or 0]
    array = group[about["datasets"][0]["path"]]
    axes = about.get("axes") or list("tczyx")  # versions before 0.3 have these five axes and do not name them
    letters = "".join(_letter(axis.get("name") if isinstance(axis, dict) else axis) for axis in axes)
    time = letters.find("t")
    unit = SECONDS.get(str(axes[time].get("unit")), None) if time >= 0 and isinstance(axes[time], dict) else None
    if unit is None:  # a scale of 1 without a unit only says that nobody knows
        return Found(array, letters, None)
    step = unit
    for holder in (about["datasets"][0], about):
        for move in holder.get("coordinateTransformations", ()):
            step *= float(move["scale"][time]) if move.get("type") == "scale" else 1.0
    return Found(array, letters, clock(step, None, 1)[0])


def _ome(group: Any) -> dict[str, Any]:
    """Metadata of OME-Zarr: under "ome" from version 0.5 on, before at the top."""
    attributes = group.attrs.asdict()
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _letter(name: Any) -> str:
    text = str(name).lower()
    return LETTERS.get(text, text if text in list("tzcyx") else "?")


def _shape(group: Any) -> Any:
    return tuple(group[_ome(group)["multiscales"][0]["datasets"][0]["path"]].shape)


def _listed(node: Any) -> str:
    if not isinstance(node, zarr.Group):
        return "one array"
    return ", ".join(f"{name!r} {getattr(one, 'shape', 'group')}" for name, one in node.members()) or "nothing"


def _bioformats_clock(path: Path, choice: Choice, count: int) -> tuple[float | None, np.ndarray | None]:
    """Interval and times from the OME-XML that bioformats2raw stores."""
    xml = path / "OME" / "METADATA.ome.xml"
    if choice.dataset is not None or not xml.is_file():
        return None, None
    return ome_clock(xml.read_text(encoding="utf-8"), choice.series or 0, choice.channel or 0, count)


def _missing(path: Path, array: zarr.Array[Any], layout: Layout, inside: Inside) -> dict[int, str]:
    """Frames of which chunks (shards, where there are some) are no files; Zarr reads them as the fill value."""
    folder = path / array.path
    if not folder.is_dir():  # a store in one file
        inside.stored = path.stat().st_size
        return {}
    key = array.metadata.encode_chunk_key
    return missing_frames(path, layout, array.shards or array.chunks, lambda position: inside.holds(folder / key(position)))
