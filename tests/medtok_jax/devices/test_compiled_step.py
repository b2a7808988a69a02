import jax
import jax.numpy as jnp
import numpy as np

from medtok_jax.devices import compiled_step
from medtok_jax.devices.compiled_step import CompiledStep, compiler_options
from medtok_jax.devices.memory import StepMemory, device_memory


def make() -> CompiledStep:
    return CompiledStep(lambda state, batch: (state + batch["x"].sum(), batch["x"] @ batch["x"].T), batch_position=1)


def test_each_batch_shape_is_compiled_once():
    step, state = make(), jnp.ones(())
    for rows, new in ((3, True), (3, False), (5, True), (3, False)):
        batch = {"x": jnp.ones((rows, 4))}
        assert step.compile(state, batch) == new
        total, product = step(state, batch)
        assert float(total) == 1 + 4 * rows
        np.testing.assert_allclose(product, np.full((rows, rows), 4.0))
    assert len(step.executables) == len(step.compile_seconds) == 2


def test_calling_compiles_by_itself():
    step = make()
    step(jnp.ones(()), {"x": jnp.ones((2, 4))})
    assert len(step.executables) == 1


def test_memory():
    step = CompiledStep(lambda x: (jnp.sort(x @ x.T).sum(), x * 2), batch_position=0, donate_argnums=0)
    assert step.memory is None
    step.compile(jnp.ones((256, 64)))
    small = step.memory
    # What is donated is not counted twice.
    assert small.arguments == 256 * 64 * 4
    assert small.outputs < 1024
    assert small.scratch >= 256 * 256 * 4
    assert small.total == small.arguments + small.outputs + small.scratch + small.code
    step.compile(jnp.ones((512, 64)))
    large = step.memory
    assert large.total > small.total
    step.compile(jnp.ones((8, 64)))
    assert step.memory == large
    assert StepMemory.of(list(step.executables.values())[-1]).total < small.total


def test_memory_is_told_from_shapes_alone():
    step = make()
    step.compile(jax.ShapeDtypeStruct((), jnp.float32), {"x": jax.ShapeDtypeStruct((3, 4), jnp.float32)})
    assert step.memory.arguments == 4 + 3 * 4 * 4


def test_device_memory():
    assert 2**28 < device_memory(jax.devices("cpu")[0]) < 2**50


def test_an_option_that_jax_does_not_know_is_left_out(monkeypatch):
    assert compiler_options("gpu") == {}
    compiler_options.cache_clear()
    monkeypatch.setattr(compiled_step, "CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert compiler_options("cpu") == {}
    compiler_options.cache_clear()


def test_the_option_does_not_change_what_is_computed():
    views = jax.random.normal(jax.random.key(0), (2, 2, 300, 32))
    summed = jax.jit(lambda x, y: (x * y).sum(0)).lower(*views).compile(compiler_options=compiler_options("cpu"))
    np.testing.assert_allclose(summed(*views), np.sum(np.asarray(views[0]) * np.asarray(views[1]), axis=0), atol=1e-6)
