"""Find the matmuls of a traced function."""

from collections.abc import Iterator

import jax


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
