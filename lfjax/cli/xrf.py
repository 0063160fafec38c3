"""The commands `lfjax xrf`: from the scan of a painting to a calibrated detector, its elements, and their maps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfjax import io, pipeline, viz, xrf
from lfjax.cli.figures import beside
from lfjax.cli.groups import grouped
from lfjax.cli.options import FollowOption, OverwriteOption, input_files, require_no_input, require_output
from lfjax.cli.runs import claim
from lfjax.errors import LfjaxError, ParameterError, require
from lfjax.progress import track

if TYPE_CHECKING:
    from lfjax.io.cube import Cube

app = typer.Typer(help="X-ray fluorescence of paintings: calibrate, elements, maps.", no_args_is_help=True)

CubeArgument = Annotated[
    str, typer.Argument(help="Scan: HDF5, .rpl, .edf, .hdr (ENVI), .npy; or one spectrum: .mca, .spe.", metavar="CUBE")
]
MAPS = (".ome.tif", ".ome.tiff", ".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class ScanOptions:
    """How to open the scan, and what is known of the scanner."""

    dataset: Annotated[str | None, typer.Option(help="Dataset of an HDF5 file.")] = None
    axes: Annotated[str | None, typer.Option(help="Letters of its axes: y, x, e (energy), d (detector), p (points).")] = None
    element: Annotated[str | None, typer.Option("--detector-element", help="Element of the detector: a number, or sum.")] = None
    grid: Annotated[str | None, typer.Option(help="Rows and columns of a list of spectra, such as 40x60.")] = None
    follow_links: FollowOption = False
    detector: Annotated[
        Path | None, typer.Option(help="Detector and scanner from `lfjax xrf calibrate`; found anew if not given.")
    ] = None
    tube: Annotated[str | None, typer.Option(help="Anode of the tube, such as Rh.")] = None
    kv: Annotated[float | None, typer.Option(help="Voltage of the tube, kV (50 if nothing is told).")] = None
    beam_kev: Annotated[float | None, typer.Option(help="Energy of a monochromatic beam, keV, in place of a tube.")] = None
    angle_deg: Annotated[float | None, typer.Option(help="Angle of scattering, degrees (135).")] = None
    air_cm: Annotated[float | None, typer.Option(help="Path through air, cm (0).")] = None
    beryllium_um: Annotated[float | None, typer.Option(help="Window of the detector, micrometres (0).")] = None
    silicon_um: Annotated[float | None, typer.Option(help="Thickness of the detector, micrometres (500).")] = None
    gain_ev: Annotated[float | None, typer.Option(help="Width of a channel, eV, where the search starts.")] = None
    offset_ev: Annotated[float | None, typer.Option(help="Energy of channel 0, eV, where the search starts.")] = None

    def open(self, cube: str) -> Cube:
        """The scan."""
        number = self.element is not None and self.element.isdecimal()
        require(self.element in (None, "sum") or number, "--detector-element", self.element, "a number from 0, or sum")
        element: Any = int(self.element or 0) if number else self.element
        grid = None if self.grid is None else _grid(self.grid)
        told = {"dataset": self.dataset, "axes": self.axes, "detector": element, "grid": grid}
        return io.open_cube(cube, **told, follow_links=self.follow_links)

    def files(self) -> tuple[Path, ...]:
        """Input files among the options."""
        return () if self.detector is None else (self.detector,)

    def instrument(self) -> xrf.Instrument:
        """What the options say of the scanner."""
        known = {"anode": self.tube, "angle_deg": self.angle_deg, "air_cm": self.air_cm, "beryllium_um": self.beryllium_um}
        known["silicon_um"] = self.silicon_um
        if self.beam_kev is not None:
            for option, value in (("--tube", self.tube), ("--kv", self.kv)):
                require(value is None, option, str(value), "nothing beside --beam-kev")
            known |= {"highest_ev": 1000 * self.beam_kev, "monochromatic": True}
        elif self.kv is not None:
            known["highest_ev"] = 1000 * self.kv
        return xrf.Instrument(**{name: value for name, value in known.items() if value is not None}).checked()  # type: ignore[arg-type]

    def known(self) -> tuple[xrf.Detector, xrf.Instrument] | None:
        """Detector and instrument of the file; None: no file. Refuses options that the file answers."""
        if self.detector is None:
            return None
        for field in ("tube", "kv", "beam_kev", "angle_deg", "air_cm", "beryllium_um", "silicon_um", "gain_ev", "offset_ev"):
            value = getattr(self, field)
            require(value is None, f"--{field.replace('_', '-')}", str(value), "nothing beside --detector, which tells it")
        return xrf.read_detector(self.detector)


@grouped
def calibrate(
    cube: CubeArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="TOML file to write.")],
    scan: ScanOptions,
    overwrite: OverwriteOption = False,
) -> None:
    """Energies and widths of the detector from the spectra of a scan; NAME.png shows the fit, with its lines named."""
    picture = Path(f"{beside(output, ('.toml',))}png")
    require_output(output, (".toml",), (*scan.files(), *input_files(cube)), overwrite=overwrite, beside=[picture])
    require(scan.detector is None, "--detector", str(scan.detector), "nothing: this command finds it")
    instrument = scan.instrument()
    with scan.open(cube) as counts:
        require_no_input([output, picture], counts.files)
        found = pipeline.calibrate_scan(counts, instrument, gain_ev=scan.gain_ev, offset_ev=scan.offset_ev, track=track)
    xrf.write_detector(output, found.detector, instrument)
    _draw(found.identified, picture)
    typer.echo(_told(found))
    typer.echo(f"{output}: {_sentence(found.identified)}")


@grouped
def elements(
    cube: CubeArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON file to write.")],
    scan: ScanOptions,
    overwrite: OverwriteOption = False,
) -> None:
    """Elements of a scan that nobody has named; NAME.png shows the spectrum, NAME_table.png the periodic table."""
    stem = beside(output, (".json",))
    picture, table = Path(f"{stem}png"), Path(f"{stem[:-1]}_table.png")
    require_output(output, (".json",), (*scan.files(), *input_files(cube)), overwrite=overwrite, beside=[picture, table])
    known, instrument = scan.known(), scan.instrument()
    with scan.open(cube) as counts:
        require_no_input([output, picture, table], counts.files)
        identified = _identify(counts, scan, known, instrument, None)
    document = {
        "elements": [each._asdict() for each in identified.elements], "possible": identified.possible,
        "misfit": identified.misfit,
        "instrument": identified.instrument._asdict(),
        "detector": {name: float(getattr(identified.detector, name)) for name in ("gain_ev", "offset_ev", "noise_ev", "fano")},
    }  # fmt: skip
    with io.writing(output) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    _draw(identified, picture)
    viz.periodic_table({each.symbol: each.probability for each in identified.elements}, table)
    for each in identified.elements:
        lines = ", ".join(f"{name} {number:.0f}" for name, number in each.counts.items() if number >= 0.5)
        typer.echo(f"{each.symbol:2}  probability {each.probability:.4f}, {(2 * each.gain) ** 0.5:.0f} sigma, counts: {lines}")
    if identified.possible:
        typer.echo(f"possible, at 2 to 5 sigma or one in place of another: {' '.join(identified.possible)}")
    typer.echo(f"{output}: {_sentence(identified)}")


@grouped
def maps(
    cube: CubeArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Maps to write: .ome.tif or .h5.")],
    scan: ScanOptions,
    lines: Annotated[
        str | None, typer.Option("--elements", help='Families to map, such as "Pb L, Fe K"; found if not given.')
    ] = None,
    smooth: Annotated[float, typer.Option(help="Total variation, in standard errors; 0: every pixel by itself.")] = 0.0,
    rows: Annotated[int | None, typer.Option(help="Rows per chunk: sets the memory.")] = None,
    devices: Annotated[int, typer.Option(help="Devices over which the pixels of a chunk are spread.")] = 1,
    overwrite: OverwriteOption = False,
) -> None:
    """Maps of the elements of a scan, with errors; NAME.png shows them, NAME_spectrum.png the sum of all spectra.

    Finished rows are kept in a folder beside the result during the run. Started again after an interruption, the command
    resumes.
    """
    stem = beside(output, MAPS)
    picture, shown = Path(f"{stem}png"), Path(f"{stem[:-1]}_spectrum.png")
    kept = output.with_name(f".{output.name}.rows.zarr")
    require_output(output, MAPS, (*scan.files(), *input_files(cube)), overwrite=overwrite, beside=[picture, shown])
    claim(output, {kept.with_name(f".{kept.name}.partial"): "finished rows", kept: "the rows"})
    known, instrument = scan.known(), scan.instrument()
    _require_families(lines, instrument if known is None else known[1])
    from lfjax import parallel  # loads JAX

    parallel.mesh(devices)
    with scan.open(cube) as counts:
        require_no_input([output, picture, shown], counts.files)
        identified = _identify(counts, scan, known, instrument, lines)
        require(len(identified.families) > 0, "CUBE", cube, "an element in it; name some by --elements")
        found = pipeline.map_scan(counts, identified, smooth=smooth, path=kept, rows=rows, devices=devices, track=track)
        pixel_um = counts.pixel_um
    io.write_maps(
        output, found.counts, found.names, energies_ev=found.energies_ev, errors=found.errors, pixel_um=pixel_um, unit="counts"
    )
    shutil.rmtree(kept, ignore_errors=True)
    viz.element_maps(found.names, found.counts, picture)
    _draw(identified, shown)
    size = " x ".join(map(str, found.counts.shape[1:]))
    typer.echo(f"{output}: maps of {', '.join(found.names)}, {size} pixels; {_sentence(identified)}")


def _identify(
    counts: Cube,
    scan: ScanOptions,
    known: tuple[xrf.Detector, xrf.Instrument] | None,
    instrument: xrf.Instrument,
    lines: str | None,
) -> xrf.Identified:
    """Elements of the scan, its detector calibrated where no file tells it."""
    if known is not None:
        told = f"{known[0].channels} channels, those of the detector in {scan.detector}"
        require(counts.shape[2] == known[0].channels, "CUBE", f"{counts.shape[2]} channels", told)
    spectra = pipeline.scan_spectra(counts, track)
    if known is None:
        found = pipeline.calibrate_scan(counts, instrument, gain_ev=scan.gain_ev, offset_ev=scan.offset_ev, spectra=spectra)
        typer.echo(_told(found))
        if lines is None:
            return found.identified
        known = found.detector, instrument
    return pipeline.identify_scan(counts, *known, families=lines, spectra=spectra)


def _grid(text: str) -> tuple[int, int]:
    """Rows and columns from ROWSxCOLUMNS."""
    rows, _, columns = text.lower().partition("x")
    numbers = [int(part) if part.strip().isdecimal() and len(part) < 10 else 0 for part in (rows, columns)]
    require(min(numbers) >= 1, "--grid", text, "rows x columns, such as 40x60")
    return numbers[0], numbers[1]


def _require_families(lines: str | None, instrument: xrf.Instrument) -> None:
    """Refuse names that are no families, before the scan is read."""
    try:
        found = lines is None or xrf.parse_families(lines, instrument.highest_ev)
    except LfjaxError as error:
        raise ParameterError(f"--elements {lines!r}: {error}") from error
    require(bool(found), "--elements", lines, "families such as Pb L, Fe K")


def _told(found: xrf.Calibration) -> str:
    detector, errors = found.detector, found.errors
    width = float(detector.fwhm_ev(5898.8))
    return (
        f"detector: {float(detector.gain_ev):.4f} +- {errors['gain_ev']:.4f} eV per channel, channel 0 at "
        f"{float(detector.offset_ev):.1f} +- {errors['offset_ev']:.1f} eV, width {width:.0f} eV at Mn Ka"
    )


def _sentence(identified: xrf.Identified) -> str:
    poor = "; the model misses some of the spectrum, see the picture" if identified.misfit > POOR else ""
    return f"{len(identified.elements)} elements: {' '.join(identified.symbols)} (misfit {identified.misfit:.2f}{poor})"


POOR = 3.0  # misfit per bin above which the model lacks something


def _draw(identified: xrf.Identified, path: Path) -> None:
    window = identified.window
    lines = {each.name: each.strongest_ev for each in identified.families}
    bins = window.energies_ev, window.counts, identified.model, identified.background, window.widths
    viz.line_spectrum(*bins, lines, path)


COMMANDS = (
    ("calibrate", calibrate, "scan.h5 --tube Rh --kv 50 -o detector.toml"),
    ("elements", elements, "scan.h5 --detector detector.toml -o elements.json"),
    ("maps", maps, "scan.h5 --detector detector.toml -o maps.ome.tif"),
)
"""Name, function and example of each command of the group."""
