"""Find codes, scales and zero-points of one weight; `submission.model.solvers` lists the solvers."""
