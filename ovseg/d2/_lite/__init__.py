"""The subset of Detectron2's API that this package uses, written anew on fvcore and iopath.

Import it through `ovseg.d2`, never directly. Behaviour follows Detectron2's documentation
(https://detectron2.readthedocs.io, Apache-2.0) and is held to it by `tests/d2`.
"""
