"""Entropy-coded integer codes of one weight: a stream of fixed length that is decoded in parallel, bit-exactly.

`layout.py` has the format's geometry and the checks that need nothing but Python; `tables.py` the frequency tables;
`contexts.py` finds the context classes of a weight; `stream.py` encodes and decodes; `exceptions.py` stores the codes
that no table holds; `kernels.py` has the compiled loops. Only the functions of the last five need numpy or numba.
"""
