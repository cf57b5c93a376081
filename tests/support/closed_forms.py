"""Formulas that answers are held to."""

import numpy as np


def dense_kl(m, s, m0, s0):
    """KL(N(m, S) || N(m0, S0)) = (tr S0^-1 S + d' S0^-1 d - n + log |S0| / |S|) / 2."""
    d, inverse = m0 - m, np.linalg.inv(s0)
    logdet = np.linalg.slogdet(s0)[1] - np.linalg.slogdet(s)[1]
    return 0.5 * (np.trace(inverse @ s) + d @ inverse @ d - len(m) + logdet)
