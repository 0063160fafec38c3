"""Neurons as files of Neurodata Without Borders, NWB (Rubel et al., eLife 11, e78362 (2022))."""

from __future__ import annotations

import math
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lfjax._lazy import load
from lfjax.activity.neurons import Neurons
from lfjax.errors import FileError, require
from lfjax.io import writing

if TYPE_CHECKING:  # its import takes a second
    from pynwb import NWBFile
    from pynwb.ophys import ImagingPlane, PlaneSegmentation


def write_nwb(
    path: str | Path,
    neurons: Neurons,
    *,
    session_start: datetime,
    description: str = "Light-field recording of neurons",
    identifier: str | None = None,
    depth_um: float = 0.0,
    location: str = "unknown",
    indicator: str = "jGCaMP8f",
    excitation_nm: float = math.nan,
    emission_nm: float = math.nan,
    threshold: float = 0.1,
) -> None:
    """Write neurons as an NWB file (HDF5), which PyNWB and MatNWB read and the DANDI archive accepts.

    The file holds, with lengths in metres and times in seconds from the first frame:

    - `imaging_planes/volume`: voxel size and position, in NWB's order x, y, z;
    - `processing/ophys/ImageSegmentation/neurons`: one row per neuron with its `voxel_mask` (x, y, z, weight; the footprint
      where it exceeds the threshold), `centre` (x, y, z) and `noise`;
    - `processing/ophys/Fluorescence` and `.../DfOverF`, each with a series `neurons` (t, n); a sample is the mean over the
      frame that begins at its time;
    - `units`: `spike_times` of each neuron, and `roi`, its row of the segmentation; the ids are 0 to n - 1 in both.

    Args:
        path: file to write, ending with .nwb.
        neurons: one or more neurons.
        session_start: date and time of the first frame, with its time zone.
        description: description of the session.
        identifier: unique name of the recording; None: a random one.
        depth_um: depth of the corner of the volume below the surface of the tissue.
        location: area of the brain.
        indicator: name of the calcium indicator.
        excitation_nm: excitation wavelength; NaN: unknown.
        emission_nm: emission wavelength; NaN: unknown.
        threshold: fraction of a footprint's maximum above which a voxel is in the mask.

    Raises:
        FileError: the suffix is not .nwb.
        ParameterError: a time without zone, no neurons, a footprint without light, or a number out of range.
        ShapeError: the shapes do not fit each other.
        ModuleNotFoundError: PyNWB is not installed (`lfjax[neuro]`).
    """
    neurons.check()
    if Path(path).suffix.lower() != ".nwb":
        raise FileError(f"{path}: suffix {Path(path).suffix!r} is not known; expected .nwb")
    require(session_start.utcoffset() is not None, "session_start", session_start.isoformat(), "a time with its time zone")
    require(len(neurons) > 0, "neurons", len(neurons), "one or more")
    require(0 <= threshold < 1, "threshold", threshold, "a fraction, 0 or more and below 1")
    require(math.isfinite(depth_um), "depth_um", depth_um, "a finite number")
    for name, value in (("excitation_nm", excitation_nm), ("emission_nm", emission_nm)):
        require(math.isnan(value) or 0 < value < math.inf, name, value, "a positive number")
    dark = np.flatnonzero(np.max(neurons.footprints, axis=(1, 2, 3)) <= 0)
    require(len(dark) == 0, "footprints", f"no light in {dark.tolist()}", "a voxel above zero in each")

    pynwb = load("pynwb")
    file: NWBFile = pynwb.NWBFile(
        session_description=description, identifier=identifier or str(uuid.uuid4()), session_start_time=session_start
    )
    plane = _plane(file, neurons, depth_um, location, indicator, excitation_nm, emission_nm)
    rois = _segmentation(file, plane, neurons, threshold)
    _traces(file, rois, neurons)
    _spikes(file, rois, neurons)
    with writing(path) as temporary, pynwb.NWBHDF5IO(temporary, "w") as io:
        io.write(file)


def _plane(
    file: NWBFile,
    neurons: Neurons,
    depth_um: float,
    location: str,
    indicator: str,
    excitation_nm: float,
    emission_nm: float,
) -> ImagingPlane:
    from pynwb.ophys import OpticalChannel

    z, y, x = (1e-6 * v for v in neurons.voxel_um)
    return file.create_imaging_plane(
        name="volume",
        description="Volume reconstructed from light fields, all planes at once",
        device=file.create_device(name="microscope", description="Light-field microscope"),
        optical_channel=OpticalChannel(name="emission", description=f"Emission of {indicator}", emission_lambda=emission_nm),
        excitation_lambda=excitation_nm,
        indicator=indicator,
        location=location,
        imaging_rate=1 / neurons.frame_s,
        grid_spacing=[x, y, z],
        grid_spacing_unit="meters",
        origin_coords=[0.0, 0.0, 1e-6 * depth_um],
        origin_coords_unit="meters",
        reference_frame="x, y, z from the corner of the volume, z down from the surface of the tissue",
    )


def _segmentation(file: NWBFile, plane: ImagingPlane, neurons: Neurons, threshold: float) -> PlaneSegmentation:
    from pynwb.ophys import ImageSegmentation

    ophys = file.create_processing_module(name="ophys", description="Neurons in light-field recordings")
    segmentation = ImageSegmentation()
    ophys.add(segmentation)
    rois = segmentation.create_plane_segmentation(
        name="neurons", description=f"Footprints above {threshold:g} of their maximum", imaging_plane=plane
    )
    for number, footprint in enumerate(np.asarray(neurons.footprints)):
        z, y, x = np.nonzero(footprint > threshold * footprint.max())
        weights = footprint[z, y, x]
        rois.add_roi(id=number, voxel_mask=list(zip(x.tolist(), y.tolist(), z.tolist(), weights.tolist(), strict=True)))
    metres = 1e-6 * np.asarray(neurons.centres_um, float)[:, ::-1]
    rois.add_column(name="centre", description="(x, y, z) in metres from the corner of the volume", data=metres)
    rois.add_column(name="noise", description="standard deviation of a frame's dF/F", data=np.asarray(neurons.noise, float))
    return rois


def _traces(file: NWBFile, rois: PlaneSegmentation, neurons: Neurons) -> None:
    from pynwb.ophys import DfOverF, Fluorescence

    kinds = ((Fluorescence(), neurons.fluorescence, "light of each neuron without neuropil"), (DfOverF(), neurons.dff, "dF/F"))
    for container, values, text in kinds:
        file.processing["ophys"].add(container)
        container.create_roi_response_series(
            name="neurons",
            description=text,
            data=np.asarray(values, np.float32).T,
            rois=rois.create_roi_table_region(region=list(range(len(neurons))), description="all neurons"),
            unit="a.u." if isinstance(container, Fluorescence) else "n.a.",
            starting_time=0.0,
            rate=1 / neurons.frame_s,
        )


def _spikes(file: NWBFile, rois: PlaneSegmentation, neurons: Neurons) -> None:
    file.add_unit_column(name="roi", description="row of the segmentation", table=rois)
    whole = [[0.0, np.shape(neurons.dff)[1] * neurons.frame_s]]
    for number, times in enumerate(neurons.spikes):
        file.add_unit(id=number, spike_times=np.asarray(times, float), obs_intervals=whole, roi=number)
