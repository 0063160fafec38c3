"""Post-processing against `relion_postprocess` on the same half-maps and mask, and against closed forms."""

import functools
import shutil
import subprocess
import warnings

import jax
import numpy as np
import pytest

from lfjax import io, tomography
from lfjax.errors import DataWarning, FileError, ParameterError, ShapeError
from lfjax.io.star import read_star

VOXEL = 1.5
SEEDS = 8
MTF = np.stack([np.arange(51) / 100, np.exp(-1.2 * np.arange(51) / 100) * np.sinc(np.arange(51) / 100)])


@pytest.fixture(scope="module")
def halves(shared):
    """Half-maps of a ribosome reconstructed from noisy images with a CTF and an envelope, and a soft mask about it."""
    truth = np.load(shared / "reference/cryo/inputs.npz")["ribo64"]
    particles = tomography.random_particles(jax.random.key(0), 300, pixel_angstrom=VOXEL, b_factor_angstrom2=30.0)
    images = np.asarray(tomography.add_noise(jax.random.key(1), particles.projector(64, kernel=3)(truth), 6.0))
    found = tomography.reconstruct([(images, particles)], 64)
    mask = tomography.density_mask(found.volume, voxel_angstrom=VOXEL, lowpass_angstrom=8.0, extend_px=2, soft_px=5)
    return (*(np.asarray(half, np.float32) for half in found.halves), mask.mask * tomography.spherical_mask(64, 26.0, 5.0))


@pytest.fixture(scope="module")
def relion(halves, tmp_path_factory):
    """Tables and map of `relion_postprocess` for random seed 1, 2, ...; options are words of its command line."""
    if shutil.which("relion_postprocess") is None:
        pytest.skip("relion_postprocess is not installed: nothing to compare with")
    folder = tmp_path_factory.mktemp("relion")
    for name, array in zip(("half1", "half2", "mask"), halves, strict=True):
        io.write_map(folder / f"{name}.mrc", array, VOXEL)
    rows = "\n".join(f"{f:.4f} {v:.8f}" for f, v in MTF.T)
    (folder / "mtf.star").write_text(f"\ndata_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}\n\n")

    @functools.cache
    def run(seed, options=""):
        out = folder / f"out{seed}{len(list(folder.iterdir()))}"
        out.mkdir()
        words = (
            f"relion_postprocess --i half1.mrc --i2 half2.mrc --mask mask.mrc --angpix {VOXEL} --auto_bfac --random_seed {seed}"
        )
        # its picture of the curves needs Ghostscript; tables and maps are written before
        subprocess.run(
            f"{words} --o {out.name}/post {options}".split(), cwd=folder, capture_output=True, check=False, timeout=120
        )
        tables = read_star(out / "post.star")
        return tables["general"].iloc[0], tables["fsc"], tables["guinier"], io.read_map(out / "post.mrc").array

    run.folder = folder
    return run


CURVES = {
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "corrected": "rlnFourierShellCorrelationCorrected",
}


def test_correlations_equal_those_of_relion(halves, relion):
    """Curves without chance within 0.01 in every shell; those that hold random phases within their standard error."""
    ours = [tomography.masked_fsc(*halves, key=jax.random.key(seed)) for seed in range(SEEDS)]
    theirs = [relion(seed + 1) for seed in range(SEEDS)]
    assert all(
        int(f.cutoff) == round(64 * VOXEL / general.rlnRandomiseFrom) for f, (general, *_) in zip(ours, theirs, strict=True)
    )
    for name, column in CURVES.items():
        a = np.array([np.asarray(getattr(f, name)) for f in ours])[:, 1:]
        b = np.array([table[column].to_numpy(float) for _, table, *_ in theirs])[:, 1:]
        apart = np.abs(a.mean(0) - b.mean(0))
        if name in ("unmasked", "masked"):
            assert apart.max() <= 0.01, name
        else:
            # chance of the mean of eight seeds, from the spread of all shells: few seeds tell little of one shell
            error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / SEEDS)
            assert np.all(apart <= 0.01 + 4 * np.maximum(error, error.mean())), name
            assert apart.mean() <= 0.01, name


@pytest.mark.parametrize(("mtf", "shortest"), [(False, 4.5), (False, 0.0), (True, 4.5), (True, 3.2)])
def test_sharpening_equals_that_of_relion(halves, relion, mtf, shortest):
    """Given RELION's own corrected curve, so that random phases play no part: B, Guinier plot and map.

    RELION divides by the MTF only below Nyquist, that is half of the last shell, which a fit that includes it feels.
    """
    options = f"--autob_highres {shortest}" + (" --mtf mtf.star" if mtf else "")
    general, table, plot, volume = relion(1, options)
    found = tomography.sharpen(
        (halves[0] + halves[1]) / 2,
        VOXEL,
        table[CURVES["corrected"]].to_numpy(float),
        fit_range_angstrom=(10.0, shortest),
        mtf=tomography.read_mtf(relion.folder / "mtf.star") if mtf else None,
    )
    assert found.b_factor == pytest.approx(float(general.rlnBfactorUsedForSharpening), rel=0.01)
    assert found.guinier.correlation == pytest.approx(float(general.rlnCorrelationFitGuinierPlot), abs=0.01)
    for name, column in (("original", "Original"), ("weighted", "Weighted")):
        theirs = plot[f"rlnLogAmplitudes{column}"].to_numpy(float)
        inside = slice(10, 30)  # RELION counts a frequency of the plane x = 0 twice, which tells in small shells
        kept = theirs[inside] > -90
        np.testing.assert_allclose(getattr(found.guinier, name)[inside][kept], theirs[inside][kept], atol=0.01)
    ours = np.asarray(found.volume)
    assert np.linalg.norm(ours - volume) <= 0.03 * np.linalg.norm(volume)


def test_postprocessing_reaches_the_shell_and_b_factor_of_relion(halves, relion):
    """Each side takes the mean over its own random phases."""
    theirs = [relion(seed + 1, "--autob_highres 4.5")[0] for seed in range(SEEDS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        ours = tomography.postprocess(*halves[:2], VOXEL, mask=halves[2], fit_range_angstrom=(10.0, 4.5), draws=SEEDS)
    shells = [round(64 * VOXEL / float(general.rlnFinalResolution)) for general in theirs]
    assert int(64 * VOXEL / ours.resolution_angstrom) in range(min(shells), max(shells) + 1)
    assert abs(int(64 * VOXEL / ours.resolution_angstrom) - np.median(shells)) <= 1
    b = np.array([float(general.rlnBfactorUsedForSharpening) for general in theirs])
    assert abs(ours.b_factor - b.mean()) <= 0.01 * abs(b.mean()) + 4 * b.std(ddof=1) / np.sqrt(SEEDS)
    np.testing.assert_allclose(ours.masked, np.asarray(ours.volume) * halves[2], atol=1e-6)


def shells_of(volume):
    return np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) * n for n in volume.shape), indexing="ij")))


def coloured(n, b, seed=0):
    """White noise with the envelope exp(-b s^2 / 4) for voxels of 1 angstrom."""
    noise = np.random.default_rng(seed).normal(size=(n, n, n))
    return np.fft.ifftn(np.fft.fftn(noise) * np.exp(-b / 4 * (shells_of(noise) / n) ** 2)).real


def test_a_known_envelope_is_found_and_undone():
    volume = coloured(48, 30.0)
    found = tomography.sharpen(volume, 1.0, np.ones(25))
    assert found.b_factor == pytest.approx(-30.0, rel=0.02)
    white = np.asarray(tomography.sharpen(volume, 1.0, np.ones(25), b_factor=-30.0).volume)
    expected = coloured(48, 0.0)
    spectrum = np.where(shells_of(expected) <= 24, np.fft.fftn(expected), 0)
    np.testing.assert_allclose(white, np.fft.ifftn(spectrum).real, atol=2e-3)


def test_the_mtf_is_divided_out_in_pixels_of_the_micrographs(tmp_path):
    """Binned by two, Nyquist of the map is half of Nyquist of the detector."""
    rows = "\n".join(f"{f} {1 - f}" for f in (0.0, 0.25, 0.5))
    (tmp_path / "mtf.star").write_text(f"data_mtf\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n{rows}\n")
    mtf = tomography.read_mtf(tmp_path / "mtf.star")
    volume = coloured(32, 0.0)
    options = {"b_factor": 0.0, "skip_fsc_weighting": True, "lowpass_angstrom": 1e-3}
    plain = np.fft.fftn(tomography.sharpen(volume, 2.0, np.ones(17), **options).volume)
    divided = np.fft.fftn(tomography.sharpen(volume, 2.0, np.ones(17), mtf=mtf, mtf_pixel_angstrom=1.0, **options).volume)
    inside = (shells_of(volume) > 0) & (shells_of(volume) < 16)
    expected = 1 / (1 - shells_of(volume) / 64)
    np.testing.assert_allclose((divided / plain)[inside].real, expected[inside], rtol=1e-2)


def test_weights_are_the_correlation_with_the_truth_and_end_where_it_ends():
    volume, curve = coloured(32, 0.0), np.r_[np.linspace(1, 0.2, 12), 0.0, np.full(4, 0.3)]
    found = np.fft.fftn(tomography.sharpen(volume, 1.0, curve, b_factor=0.0).volume)
    ratio = np.abs(found) / np.abs(np.fft.fftn(volume))
    shell = np.floor(shells_of(volume) + 0.5).astype(int)
    np.testing.assert_allclose(ratio[shell == 8], np.sqrt(2 * curve[8] / (1 + curve[8])), rtol=1e-3)
    assert ratio[shell >= 12].max() <= 1e-4
    no_weights = tomography.sharpen(volume, 1.0, curve, b_factor=0.0, skip_fsc_weighting=True)
    ratio = np.abs(np.fft.fftn(no_weights.volume)) / np.abs(np.fft.fftn(volume))
    np.testing.assert_allclose(ratio[shell == 8], 1, rtol=1e-3)  # and a low-pass filter at the resolution, shell 12
    assert ratio[shell >= 14].max() <= 1e-4


def test_the_resolution_says_where_it_cannot_be_read():
    assert tomography.resolution_text(np.array([1.0, 1.0, 0.6, 0.4, 0.1]), 100.0, 0.5) == "40.00 A"
    assert tomography.resolution_text(np.ones(5), 32.0) == "8.00 A, Nyquist: it does not fall to 0.143"
    assert tomography.resolution_text(np.r_[1.0, np.zeros(4)], 32.0) == "never above 0.143"


def test_half_maps_that_do_not_agree_are_refused():
    a, b = np.random.default_rng(0).normal(size=(2, 24, 24, 24))
    low = np.asarray(tomography.fsc(a, b))
    with pytest.raises(ParameterError, match=r"never above 0\.143"):
        tomography.sharpen(a, 1.0, np.minimum(low, 0.1))


@pytest.mark.parametrize("masked", [False, True])
def test_noise_alone_gives_no_resolution(masked):
    """Shell 1 holds nine independent values, so that noise often exceeds 0.143 there."""
    n, claims, crossings = 32, 0, 0
    mask = tomography.spherical_mask(n, 9.0, 5.0) if masked else None
    for seed in range(20):
        a, b = np.random.default_rng(seed).normal(size=(2, n, n, n))
        curve = np.asarray(tomography.fsc(a, b))
        crossings += curve[1] >= 0.143
        claims += np.isfinite(tomography.resolution(curve, 2.0 * n))
        assert "never above" in tomography.resolution_text(curve, 2.0 * n)
        if seed < 12:
            with pytest.raises(ParameterError, match="do not agree beyond chance"):
                tomography.postprocess(a, b, 2.0, mask=mask)
    assert claims == 0 and crossings >= 3


def test_curves_of_real_maps_keep_their_resolution(halves):
    """Read by plain interpolation of the curve, which the check of significance leaves as it is."""
    found = tomography.masked_fsc(*halves)
    for curve in (found.unmasked, found.masked, found.corrected):
        values = np.asarray(curve, float)
        last = int(np.flatnonzero(values < 0.143)[0]) - 1
        place = last + (values[last] - 0.143) / (values[last] - values[last + 1])
        assert tomography.resolution(values, 96.0, share=float(np.mean(halves[2] > 0.5))) == pytest.approx(96.0 / place)
    np.testing.assert_allclose([curve[0] for curve in found[:4]], 1.0)


def test_chance_level_holds_for_noise():
    """Of 6000 shells of noise less than one in a thousand exceeds it, and three in a thousand half of it or more."""
    rng = np.random.default_rng(0)
    curves = np.array([tomography.fsc(*rng.normal(size=(2, 16, 16, 16))) for _ in range(750)])[:, 1:]
    level = tomography.chance_level(9)[1:]
    assert level[0] < 0.9 and np.mean(curves >= level) <= 1e-3
    assert 3e-3 <= np.mean(curves >= level / 2) <= 0.05


def test_a_map_twice_is_no_pair_of_half_maps(halves):
    a = coloured(16, 0.0)
    for second in (a, 3 * a + 2, -a, (a + 1e-3 * coloured(16, 0.0, 1)).astype(np.float32)):
        assert tomography.same_map(a, second)
        with pytest.raises(ParameterError, match="the half-maps are the same map"):
            tomography.postprocess(a, second, 1.0)
    assert not tomography.same_map(*halves[:2])
    smooth = np.asarray(tomography.low_pass(a, 8.0, 1.0), np.float32)
    assert tomography.same_map(smooth, np.float32(0.3) * smooth)


def test_agreement_is_told_in_a_clause():
    assert tomography.agreement(np.array([1.0, 1.0, 0.6, 0.4, 0.0]), 100.0, 0.5) == "half-maps agree to 40.00 A (FSC 0.5)"
    assert tomography.agreement(np.ones(5), 32.0) == "half-maps agree up to Nyquist, 8.00 A (FSC above 0.143)"
    for low in (0.0, 0.5):
        assert tomography.agreement(np.r_[1.0, low, np.zeros(3)], 32.0) == "half-maps do not agree beyond chance"


def test_a_mask_of_one_everywhere_changes_no_correlation(halves):
    found = tomography.masked_fsc(*halves[:2], np.ones((64, 64, 64)))
    np.testing.assert_allclose(found.corrected, found.unmasked, atol=1e-5)


def test_numbers_that_are_none_are_named():
    a, b = np.random.default_rng(0).normal(size=(2, 16, 16, 16))
    pair = 3 * a + b, 3 * a - b
    for options, name in (
        ({"b_factor": np.nan}, "b_factor"),
        ({"b_factor": -np.inf}, "b_factor"),
        ({"lowpass_angstrom": np.nan}, "lowpass_angstrom"),
        ({"mtf_pixel_angstrom": np.inf}, "mtf_pixel_angstrom"),
        ({"fit_range_angstrom": (np.nan, None)}, "fit_range_angstrom"),
        ({"fit_range_angstrom": (10.0, np.nan)}, "fit_range_angstrom"),
    ):
        with pytest.raises(ParameterError, match=f"{name} = "):
            tomography.postprocess(*pair, 1.0, **options)
    with pytest.raises(ParameterError, match="threshold = nan"):
        tomography.directional_fsc(*pair, 1.0, threshold=np.nan)
    with pytest.raises(ParameterError, match="threshold = nan"):
        tomography.resolution(np.ones(5), 1.0, np.nan)
    with pytest.raises(ParameterError, match="curve.*not finite"):
        tomography.resolution(np.full(5, np.nan), 1.0)
    broken = np.where(np.arange(16) == 3, np.nan, pair[1])
    with pytest.raises(ParameterError, match="second = .*not finite"):
        tomography.postprocess(pair[0], broken, 1.0)
    with pytest.raises(ParameterError, match="second = '0 everywhere'"):
        tomography.postprocess(pair[0], 0 * a, 1.0)


def test_doubts_are_told():
    n = 32
    noise = np.random.default_rng(3).normal(size=(2, n, n, n))
    ball = np.exp(-(((shells := np.arange(n) - n // 2)[:, None, None] ** 2) + shells[:, None] ** 2 + shells**2) / 18)
    low = [80 * ball + half for half in noise]
    tight = tomography.spherical_mask(n, 3.0, 1.0)
    with pytest.warns(DataWarning, match="random phases correlate"):
        found = tomography.postprocess(*low, 2.0, mask=tight, force_mask=True, b_factor=0.0)
    assert any("random phases" in note for note in found.warnings)
    same = coloured(n, 0.0)
    near = same + 0.1 * same.std() * noise[0]
    with pytest.warns(DataWarning, match=r"never falls below 0\.8"):
        tomography.postprocess(same, near, 2.0, mask=tomography.spherical_mask(n, 8.0, 5.0), b_factor=0.0)
    with pytest.warns(DataWarning, match="too few to fit"):
        found = tomography.postprocess(*low, 20.0)
    assert found.b_factor == 0.0
    with pytest.warns(DataWarning, match="positive"):
        tomography.sharpen(same, 1.0, np.ones(17), b_factor=20.0)


def test_a_mask_that_shortens_the_correlation_is_left_out_unless_forced():
    """Outside of the particle the same noise is in both half-maps: there the maps agree to the end."""
    n = 32
    rng = np.random.default_rng(5)
    common, apart = rng.normal(size=(n, n, n)), rng.normal(size=(2, n, n, n))
    inside = tomography.spherical_mask(n, 7.0, 3.0)
    halves = [common * (1 - inside) + inside * (0.3 * tomography.low_pass(common, 8.0, 1.0) + half) for half in apart]
    with pytest.warns(DataWarning, match="the mask is left out"):
        found = tomography.postprocess(*halves, 1.0, mask=inside, b_factor=0.0)
    np.testing.assert_allclose(found.curve[1:], found.curves.unmasked[1:], atol=1e-6)


def test_wrong_arguments_are_named(tmp_path, unchecked):
    a = coloured(16, 0.0)
    b = a + 0.3 * coloured(16, 0.0, 1)
    with pytest.raises(ShapeError, match="second"):
        tomography.postprocess(a, a[:8], 1.0)
    with pytest.raises(ShapeError, match="mask"):
        tomography.postprocess(a, b, 1.0, mask=np.ones((8, 8, 8)))
    with pytest.raises(ParameterError, match="voxel_angstrom"):
        tomography.postprocess(a, b, -1.0)
    with pytest.raises(ParameterError, match="fit_range_angstrom"):
        tomography.postprocess(a, b, 1.0, fit_range_angstrom=(4.0, 10.0))
    for text, words in (
        ("data_\n\nloop_\n_rlnMtfValue\n1\n0.5\n", "rlnResolutionInversePixel"),
        ("data_\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\n0.5 0\n", "row 2"),
        ("data_\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0.5 1\n0.2 0.9\n", "ascending"),
        ("data_\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 high\n0.5 0.9\n", "no number"),
        ("data_\n\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\ninf 0.9\n", "ascending"),
    ):
        (tmp_path / "mtf.star").write_text(text)
        with pytest.raises(FileError, match=f"mtf.star.*{words}"):
            tomography.read_mtf(tmp_path / "mtf.star")
