"""Find the matmuls of a traced function, and compute it as a device does that rounds them."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp


def matmuls(function, *args) -> list:
    """Return the equations of all matmuls that the function does on these arguments, at any depth."""
    return list(_of(jax.make_jaxpr(function)(*args).jaxpr))


def _of(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(part):
                yield from _of(getattr(part, "jaxpr", part))


def _is_jaxpr(x: object) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


def is_exact(equation) -> bool:
    """Return whether a matmul is one of float32 on every device."""
    highest = jax.lax.Precision.HIGHEST
    return equation.params["precision"] == (highest, highest)


def as_on_tpu(function):
    """Return the function as a TPU computes it: operands of matmuls that are not exact are rounded to bfloat16.

    Matmuls within loops are left as they are.
    """

    def rounded(*args):
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        found = _evaluated(traced.jaxpr, traced.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return rounded


def _evaluated(jaxpr, constants: list, arguments: list) -> list:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def value(variable):
        return variable.val if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        values, inner = [value(variable) for variable in equation.invars], equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit"):
            found = _evaluated(inner.jaxpr, inner.consts, values)
        else:
            if equation.primitive.name == "dot_general" and not is_exact(equation):
                values = [x.astype(jnp.bfloat16).astype(x.dtype) for x in values]
            params = equation.primitive.get_bind_params(equation.params)
            # Earlier versions of jax return functions beside them.
            functions, params = params if isinstance(params, tuple) else ((), params)
            found = equation.primitive.bind(*functions, *values, **params)
            found = found if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, found, strict=True))
    return [value(variable) for variable in jaxpr.outvars]
