"""Neurons as files of Neurodata Without Borders, NWB (Rubel et al., eLife 11, e78362 (2022))."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lfjax._lazy import load
from lfjax.activity.neurons import Neurons
from lfjax.activity.session import check_session, check_start, check_subject
from lfjax.errors import FileError, require
from lfjax.io.hdf5_file import new_hdf5

CHUNK = 16384  # frames of a trace that are compressed, and read, together

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
    subject: Mapping[str, Any] | None = None,
    session: Mapping[str, Any] | None = None,
) -> None:
    """Write neurons as an NWB file (HDF5), which PyNWB and MatNWB read.

    With a subject, `nwbinspector` has no critical message, and the DANDI archive accepts the file.

    The file holds, with lengths in metres and times in seconds from the first frame:

    - `imaging_planes/volume`: voxel size and position, in NWB's order x, y, z;
    - `processing/ophys/ImageSegmentation/neurons`: one row per neuron with its `voxel_mask` (x, y, z, weight; the footprint
      where it exceeds the threshold), `centre` (x, y, z), `noise`, and `valid`, whether its dF/F is defined;
    - `processing/ophys/Fluorescence` and `.../DfOverF`, each with a series `neurons` (t, n), and if it is known `neuropil` in
      the first; a sample is the mean over the frame that begins at its time;
    - `units`: `spike_times` of each neuron, and `roi`, its row of the segmentation; the ids are 0 to n - 1 in both. Several
      spikes of one event have one time.

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
        subject: the animal: subject_id, species, sex, age or date_of_birth, and more, see `read_session`.
        session: institution, lab, experimenter, keywords, session_id and more, see `read_session`.

    Raises:
        FileError: the suffix is not .nwb.
        ParameterError: a time without zone or in the future, no neurons, a footprint without light, a number out of range, or
            a subject or a session with unknown, missing or malformed entries.
        ShapeError: the shapes do not fit each other.
        ModuleNotFoundError: PyNWB is not installed (`lfjax[neuro]`).
    """
    neurons.check()
    if Path(path).suffix.lower() != ".nwb":
        raise FileError(f"{path}: suffix {Path(path).suffix!r} is not known; expected .nwb")
    check_start(session_start)
    animal = None if subject is None else check_subject(subject)
    about = check_session(session or {})
    require(len(neurons) > 0, "neurons", len(neurons), "one or more")
    require(0 <= threshold < 1, "threshold", threshold, "a fraction, 0 or more and below 1")
    require(math.isfinite(depth_um), "depth_um", depth_um, "a finite number")
    for name, value in (("excitation_nm", excitation_nm), ("emission_nm", emission_nm)):
        require(math.isnan(value) or 0 < value < math.inf, name, value, "a positive number")
    dark = np.flatnonzero(np.max(neurons.footprints, axis=(1, 2, 3)) <= 0)
    require(len(dark) == 0, "footprints", f"no light in {dark.tolist()}", "a voxel above zero in each")

    pynwb = load("pynwb")
    file: NWBFile = pynwb.NWBFile(
        session_description=description, identifier=identifier or str(uuid.uuid4()), session_start_time=session_start, **about
    )
    if animal is not None:
        file.subject = pynwb.file.Subject(**animal)
    plane = _plane(file, neurons, depth_um, location, indicator, excitation_nm, emission_nm)
    rois = _segmentation(file, plane, neurons, threshold)
    _traces(file, rois, neurons)
    _spikes(file, rois, neurons)
    with new_hdf5(path) as target, pynwb.NWBHDF5IO(file=target, mode="w") as io:
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
    rois.add_column(name="valid", description="whether dF/F is defined; if not, it is 0", data=np.asarray(neurons.valid, bool))
    return rois


def _traces(file: NWBFile, rois: PlaneSegmentation, neurons: Neurons) -> None:
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb.ophys import DfOverF, Fluorescence

    light, change = Fluorescence(), DfOverF()
    series = [
        (light, "neurons", neurons.fluorescence, "light of each neuron without neuropil", "a.u."),
        (change, "neurons", neurons.dff, "dF/F", "n.a."),
    ]
    if neurons.neuropil is not None:
        series.append((light, "neuropil", neurons.neuropil, "light of the neuropil around each neuron", "a.u."))
    for container in (light, change):
        file.processing["ophys"].add(container)
    for container, name, values, text, unit in series:
        data = np.asarray(values, np.float32).T
        container.create_roi_response_series(
            name=name,
            description=text,
            data=H5DataIO(data, compression="gzip", chunks=(min(len(data), CHUNK), 1)),
            rois=rois.create_roi_table_region(region=list(range(len(neurons))), description="all neurons"),
            unit=unit,
            starting_time=0.0,
            rate=1 / neurons.frame_s,
        )


def _spikes(file: NWBFile, rois: PlaneSegmentation, neurons: Neurons) -> None:
    from pynwb.misc import Units

    # The resolution, a half frame, is the step of the grid on which spikes are sought; equal times are allowed with it.
    file.units = Units(name="units", description="spikes of the neurons, from their dF/F", resolution=neurons.frame_s / 2)
    file.add_unit_column(name="roi", description="row of the segmentation", table=rois)
    whole = [[0.0, np.shape(neurons.dff)[1] * neurons.frame_s]]
    for number, times in enumerate(neurons.spikes):
        file.add_unit(id=number, spike_times=np.asarray(times, float), obs_intervals=whole, roi=number)
