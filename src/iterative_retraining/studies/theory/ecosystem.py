"""The linear theory of models that feed each other, near the fixed point of a well-specified exponential family.

Mean parameters average: m_i of generation t is (m_real + sum_j lam_ij m^_j) / (1 + sum_j lam_ij), m^_j the mean of
lam_ij n samples of model j of generation t-1. Derived here; one model alone gives `finite_samples`.
"""

import numpy as np
from scipy.linalg import solve_discrete_lyapunov


def coupled_jacobian(lam: np.ndarray, *, real: bool = True) -> np.ndarray:
    """J (k, k) for ratios lam (k, k): lam_ij over the size of D_t of model i in units of n. The Jacobian of retraining
    is J times the identity on parameters. Raises ValueError for negative ratios or a model that learns from nothing."""
    lam = np.asarray(lam, dtype=np.float64)
    size = lam.sum(axis=1) + real
    if lam.ndim != 2 or lam.shape[0] != lam.shape[1] or (lam < 0).any() or not (size > 0).all():
        raise ValueError(
            f"lam = {lam.tolist()} is not allowed: k rows of k ratios >= 0, none of zeros without real data"
        )
    return lam / size[:, None]


def spectral_radius(lam: np.ndarray, *, real: bool = True) -> float:
    """The factor of a retraining on a deviation, in the long run: the largest modulus of the eigenvalues of J.

    Below 1 for any lam with real data, by the row sums; 1 without them: nothing pulls back.
    """
    return float(np.abs(np.linalg.eigvals(coupled_jacobian(lam, real=real))).max())


def sampling_noise(lam: np.ndarray, *, real: bool = True) -> np.ndarray:
    """The covariance Q (k, k) that one retraining adds, in units of V/n: sum_j J_ij J_lj / max(lam_ij, lam_lj).

    All models read the first samples of model j, so those that read many share those of one that reads few.
    """
    lam, jacobian = np.asarray(lam, dtype=np.float64), coupled_jacobian(lam, real=real)
    most = np.maximum(lam[:, None, :], lam[None, :, :])
    shared = jacobian[:, None, :] * jacobian[None, :, :]
    return np.divide(shared, most, out=np.zeros_like(shared), where=most > 0).sum(axis=2)


def stationary_covariance(lam: np.ndarray) -> np.ndarray:
    """C (k, k) = J C J^T + Q, in units of V/n, around the real data's estimate; with real data."""
    return solve_discrete_lyapunov(coupled_jacobian(lam), sampling_noise(lam))


def covariance_over_time(lam: np.ndarray, generations: int, *, real: bool = True) -> np.ndarray:
    """C_t (generations + 1, k, k), from C_0 = 0: all models start at the real data's estimate."""
    jacobian, noise = coupled_jacobian(lam, real=real), sampling_noise(lam, real=real)
    found = [np.zeros_like(noise)]
    for _ in range(generations):
        found.append(jacobian @ found[-1] @ jacobian.T + noise)
    return np.stack(found)
