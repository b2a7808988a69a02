"""Programs of XLA are read from their text."""

import pytest

from eval.speed.accelerators import hlo
from eval.speed.accelerators.hlo import Array, Frame

TEXT = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/x/main.py"
2 "/x/medtok_jax/models/search.py"

FunctionNames
1 "main"
2 "mix_nearest"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=9}
2 {file_name_id=2 function_name_id=2 line=104 end_line=104 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (param_0: f32[4,8], param_1: f32[8,6]) -> f32[4,6] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %param_1 = f32[8,6]{1,0:T(8,128)S(1)} parameter(1)
  ROOT %dot.1 = f32[4,6]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, \
operand_precision={highest,highest}, metadata={op_name="jit(step)/f(\\"a\\")/dot_general" stack_frame_id=2}
}

ENTRY %main.7 (a: f32[4,8], b: f32[8,6]) -> (f32[4,6], s32[]) {
  %a = f32[4,8]{1,0} parameter(0), sharding={replicated}, metadata={op_name="a"}
  %b = f32[8,6]{1,0} parameter(1)
  %constant.2 = s32[] constant(2)
  %fusion.3 = f32[4,6]{1,0} fusion(%a, %b), kind=kOutput, calls=%fused
  %gemm = (f32[4,6]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"precision_config":{"operand_precision":["HIGHEST","DEFAULT"]}}}
  ROOT %tuple = (f32[4,6]{1,0}, /*index=1*/s32[]) tuple(%fusion.3, %constant.2)
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.parse(TEXT)


def test_computations_and_instructions(program):
    assert program.entry == "main.7"
    assert program.computations.keys() == {"fused", "main.7"}
    fusion = program.computations["main.7"]["fusion.3"]
    assert (fusion.opcode, fusion.operands, fusion.called) == ("fusion", ("a", "b"), ("fused",))
    assert fusion.results == (Array("f32", (4, 6)),)
    assert program.root("main.7").results == (Array("f32", (4, 6)), Array("s32", ()))
    assert program.computations["main.7"]["constant.2"].operands == ()


def test_what_a_matmul_is(program):
    dot = program.root("fused")
    assert dot.precisions == ("highest", "highest")
    assert dot.op_name.endswith("/dot_general")
    assert program.frames(dot) == [
        Frame("/x/medtok_jax/models/search.py", "mix_nearest", 104),
        Frame("/x/main.py", "main", 3),
    ]
    gemm = program.computations["main.7"]["gemm"]
    assert (gemm.target, gemm.precisions) == ("__cublas$gemm", ("highest", "default"))
    assert program.frames(gemm) == []
    assert program.computations["main.7"]["fusion.3"].precisions == ("default", "default")


def test_memory_spaces_and_sizes(program):
    assert program.computations["fused"]["param_1"].results == (Array("f32", (8, 6), space=1),)
    (array,) = hlo.arrays("bf16[1024,512]{1,0:T(8,128)(2,1)}")
    assert (array.elements, array.bytes, str(array)) == (2**19, 2**20, "bf16[1024,512]")
    assert [one.bytes for one in hlo.arrays("(pred[3]{0}, s4[8], token[])")] == [3, 4, 0]


def test_operands_as_they_are_lowered():
    text = "ENTRY main.2 {\n  a = f32[4,8]{1,0} parameter(0)\n  n.1 = f32[4,8]{1,0} negate(a)\n"
    text += "  ROOT add.3 = f32[4,8]{1,0} add(n.1, f32[4,8]{1,0} %a)\n}\n"
    inside = hlo.parse(text).computations["main.2"]
    assert (inside["n.1"].operands, inside["add.3"].operands) == (("a",), ("n.1", "a"))


def test_a_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("module @jit_step {\n}\n")
