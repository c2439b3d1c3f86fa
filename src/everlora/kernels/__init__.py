"""Computes penalties on the entries of an update on a GPU, tile by tile, without a matrix of shape (o, i).

A penalty such as ELLA's is Ω = Σ_ab f(D_ab, W_ab), with D = scale · B A − start an update and W the past. Plain torch
makes D, W and what follows from them as matrices; on a stack of large modules these are gigabytes in every step. Here
a program for each band of rows makes entries from the factors, and only Ω and ∂Ω/∂A, ∂Ω/∂B leave it.

    choice.py   decides where tiles are used, checks them against plain torch at the first use, and falls back
    tiles.py    is the implementation in Triton; imported only where it is used

The plain functions stand in `everlora.parts` (`energy_overlap`, `sign_conflict`, `sparsity`). They are what is used on
a CPU, and what tiles must equal.
"""

from everlora.kernels.choice import RATE, Factors, Form, Found, Problem, keep_factors, solve, use_tiles

__all__ = ["RATE", "Factors", "Form", "Found", "Problem", "keep_factors", "solve", "use_tiles"]
