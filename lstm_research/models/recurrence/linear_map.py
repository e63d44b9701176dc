"""Linear functions that bring their own transpose.

`jax.custom_vjp` would rule out forward mode, and `jax.custom_derivatives.linear_call` rules out `jax.vmap` and second
derivatives. The primitive below keeps all of them: reverse mode calls the given transpose, everything else goes through
the function itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Function = Callable[[Any, Any], Any]


def linear_map(function: Function, transpose: Function, residuals: Any, operands: Any) -> Any:
    """Returns `function(residuals, operands)`, and lets reverse-mode differentiation use `transpose`.

    Args:
      function: linear in `operands`. Pure, and closed over no traced arrays.
      transpose: `(residuals, cotangents) -> cotangents of the operands`; pure, closed over no traced arrays.
      residuals: a pytree of arrays.
      operands: a pytree of arrays of floating-point numbers.
    """
    residual_tree: Any
    operand_tree: Any
    residual_leaves, residual_tree = jax.tree.flatten(residuals)
    operand_leaves, operand_tree = jax.tree.flatten(operands)
    out_tree: Any = jax.tree.structure(jax.eval_shape(function, residuals, operands))

    def flat_function(residuals: list, operands: list) -> list:
        return jax.tree.leaves(function(residual_tree.unflatten(residuals), operand_tree.unflatten(operands)))

    def flat_transpose(residuals: list, cotangents: list) -> list:
        return jax.tree.leaves(transpose(residual_tree.unflatten(residuals), out_tree.unflatten(cotangents)))

    leaves = _linear_map.bind(
        *residual_leaves,
        *operand_leaves,
        function=flat_function,
        transpose=flat_transpose,
        num_residuals=len(residual_leaves),
    )
    return out_tree.unflatten(leaves)


_linear_map = Primitive("linear_map")
_linear_map.multiple_results = True


def _call(*leaves: Any, function: Function, transpose: Function, num_residuals: int) -> list:
    return function(list(leaves[:num_residuals]), list(leaves[num_residuals:]))


def _abstract_eval(*avals: Any, **parameters: Any) -> list:
    return jax.make_jaxpr(lambda *leaves: _call(*leaves, **parameters))(*avals).out_avals


def _jvp(primals: Sequence, tangents: Sequence, *, function: Function, transpose: Function, num_residuals: int) -> Any:
    def bind(operands: list) -> list:
        return _linear_map.bind(
            *residuals, *operands, function=function, transpose=transpose, num_residuals=num_residuals
        )

    residuals, operands = list(primals[:num_residuals]), list(primals[num_residuals:])
    out = bind(operands)
    moving = [index for index in range(num_residuals) if not isinstance(tangents[index], ad.Zero)]
    parts = []
    if not all(isinstance(tangent, ad.Zero) for tangent in tangents[num_residuals:]):
        parts.append(bind([ad.instantiate_zeros(tangent) for tangent in tangents[num_residuals:]]))
    if moving:

        def of_residuals(*values: Any) -> list:
            replaced = dict(zip(moving, values, strict=True))
            return function([replaced.get(i, leaf) for i, leaf in enumerate(residuals)], operands)

        parts.append(jax.jvp(of_residuals, [residuals[i] for i in moving], [tangents[i] for i in moving])[1])
    if not parts:
        return out, [jnp.zeros_like(leaf) for leaf in out]
    return out, [sum(leaves[1:], leaves[0]) for leaves in zip(*parts, strict=True)]


def _transpose(cotangents: Sequence, *leaves: Any, function: Function, transpose: Function, num_residuals: int) -> list:
    cotangents = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    results = transpose(list(leaves[:num_residuals]), cotangents)
    wanted = [
        result if ad.is_undefined_primal(leaf) else None
        for result, leaf in zip(results, leaves[num_residuals:], strict=True)
    ]
    return [None] * num_residuals + wanted


def _batch(leaves: Sequence, axes: Sequence, *, function: Function, transpose: Function, num_residuals: int) -> Any:
    (size,) = {leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None}
    # Operands without the axis get it here, outside the primitive, where JAX sums their cotangents over it.
    moved = [
        (leaf if index < num_residuals else jnp.broadcast_to(leaf, (size, *leaf.shape)))
        if axis is None
        else jnp.moveaxis(leaf, axis, 0)
        for index, (leaf, axis) in enumerate(zip(leaves, axes, strict=True))
    ]
    residual_axes = [None if axis is None else 0 for axis in axes[:num_residuals]]
    out = _linear_map.bind(
        *moved,
        function=jax.vmap(function, in_axes=(residual_axes, 0), axis_size=size),
        transpose=jax.vmap(transpose, in_axes=(residual_axes, 0), axis_size=size),
        num_residuals=num_residuals,
    )
    return out, [0] * len(out)


_linear_map.def_impl(_call)
_linear_map.def_abstract_eval(_abstract_eval)
ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
mlir.register_lowering(_linear_map, mlir.lower_fun(_call, multiple_results=True))
