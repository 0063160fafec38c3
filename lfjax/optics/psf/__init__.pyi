from lfjax.optics.alignment import Alignment as Alignment
from lfjax.optics.psf.images import PSF as PSF, Sampling as Sampling, compute_psf as compute_psf, psf_images as psf_images
from lfjax.optics.psf.lenslets import round_mask as round_mask
from lfjax.optics.psf.measured import measured_psf as measured_psf, measured_views as measured_views
from lfjax.optics.psf.pupil import Pupil as Pupil
