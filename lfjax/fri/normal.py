"""Normal equations of points in a plane from one-dimensional Gram matrices.

Where images are separable along x and y, the inner product of two of them, or of their derivatives, is a product of two
one-dimensional ones: one K x K Gram matrix per axis replaces the Jacobian of all samples.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.fri.planar import Sampling
from lfjax.solvers.levenberg_marquardt import Normal


@eqx.filter_jit
def point_normal(
    sampling: Sampling,
    samples: Float[Array, "m n"],
    points: Float[Array, "k 2"],
    amplitudes: Float[Array, " k"],
    jacobian: Float[Array, "3*k q"],
) -> Normal:
    """Normal equations of `Sampling.plane` in parameters that move its points; the kernel must be smooth.

    The cost is a difference of sums as large as |samples|^2: its rounding is 1e-16 of that.

    Args:
        sampling: kernel and grid.
        samples: y.
        points: (x, y) of each point.
        amplitudes: amplitude of each point.
        jacobian: d (all x, all y, all amplitudes) / d parameters.
    """
    differentiated = Sampling(sampling.kernel.derivative(), sampling.size, sampling.spacing)
    k, weight = len(amplitudes), amplitudes[:, None]
    x, y = (sampling.basis(points[:, axis]) for axis in (0, 1))
    dx, dy = (differentiated.basis(points[:, axis]) / sampling.spacing * weight for axis in (0, 1))
    along_x, along_y = jnp.concatenate([dx, x, x]), jnp.concatenate([y, dy, y])
    if 3 * k > samples.size:  # more points than samples: the Jacobian itself is the smaller matrix
        columns = jnp.einsum("pm,pn,pq->mnq", along_y, along_x, jacobian).reshape(samples.size, -1)
        misfit = (jnp.einsum("km,kn->mn", y, x * weight) - samples).ravel()
        return Normal(misfit @ misfit, columns.T @ misfit, columns.T @ columns)
    gram = (along_x @ along_x.T) * (along_y @ along_y.T)
    correlation = jnp.sum((along_y @ samples) * along_x, axis=1)
    gradient = gram[:, 2 * k :] @ amplitudes - correlation
    cost = jnp.sum(samples**2) - amplitudes @ (correlation[2 * k :] - gradient[2 * k :])
    return Normal(cost, jacobian.T @ gradient, jacobian.T @ gram @ jacobian)
