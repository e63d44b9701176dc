"""Cells' weights from and to other libraries, as plain dicts of arrays; none of the libraries is imported.

Every `from_*` returns the cell and NumPy arrays as its parameters, every `to_*` takes the two. A weight that the other
side has no place for, or that this side would not read, is an error and never dropped; the one exception, a forget gate
that its own operator does not read, is told at `from_onnx`.

Parameters do not tell what a module does besides its cells. `residual` and `skip_output` of a stack, `merge` where the
sizes agree, and zoneout, which acts in evaluation too, leave no trace in them: a `to_*` cannot see these, and they are
the caller's to rebuild on the other side. Stacks with `highway` or `skip` have other parameters, and are refused.
"""

from lstm_research.models.interop.cudnn import from_cudnn, to_cudnn
from lstm_research.models.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from lstm_research.models.interop.keras import from_keras, to_keras
from lstm_research.models.interop.onnx import from_onnx, to_onnx
from lstm_research.models.interop.pytorch import cell_from_pytorch, cell_to_pytorch, from_pytorch, to_pytorch

__all__ = [
    "cell_from_pytorch",
    "cell_to_pytorch",
    "from_cudnn",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_onnx",
    "from_pytorch",
    "to_cudnn",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_onnx",
    "to_pytorch",
]
