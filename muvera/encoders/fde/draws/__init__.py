"""Random draws of the MUVERA programs whose FDEs our presets reproduce.

One module per program: ``reference`` (Google's C++), ``fastembed`` (Qdrant's Python) and ``weaviate``
(Weaviate's Go).  Each gives ``hyperplanes`` and ``projections`` as plain arrays from plain numbers; what
the program then does with them is the encoder's business.  ``libstdcxx`` and ``go_rand`` replay the two
foreign random libraries underneath.
"""
