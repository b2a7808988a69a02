"""Kernels, bytes, operations and exchanges are counted as a device has them."""

import pytest

from eval.speed.accelerators import counting, hlo
from eval.speed.accelerators.hlo import Array


def count(body: str, computations: str = "") -> counting.Counts:
    return counting.count(hlo.parse(f"{computations}\nENTRY %main (a: f32[4,8]) -> f32[4,6] {{\n{body}}}\n"))


ARGUMENTS = "  %a = f32[4,8]{1,0} parameter(0)\n  %b = f32[8,6]{1,0} parameter(1)\n"
DOT = "dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"


@pytest.mark.parametrize(
    ("operand", "more", "precision"),
    [
        ("f32", ", operand_precision={highest,highest}", "float32"),
        ("f32", "", "default"),
        ("f32", ", operand_precision={highest,default}", "default"),
        ("f32", ", operand_precision={high,high}", "three passes"),
        ("f32", ", algorithm=dot_f32_f32_f32", "float32"),
        ("f32", ", algorithm=dot_tf32_tf32_f32", "default"),
        ("bf16", ", operand_precision={highest,highest}", "bfloat16"),
    ],
)
def test_precision_of_a_matmul(operand, more, precision):
    found = count(ARGUMENTS.replace("f32", operand) + f"  ROOT %d = f32[4,6]{{1,0}} {DOT}{more}\n")
    (matmul,) = found.matmuls
    assert (matmul.precision, matmul.flops) == (precision, 2 * 4 * 8 * 6)


@pytest.mark.parametrize(
    ("types", "operation"),
    [
        # A batch of 5 products of [4,8] and [8,6]: as a dot, and as TPUs have it, over a dilated or a plain dimension.
        (("5,4,8", "5,8,6", "5,4,6"), "dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}"),
        (("5,4,8", "5,6,8", "5,4,6"), "convolution(%a, %b), window={size=5 lhs_dilate=5}, dim_labels=0bf_0oi->0bf"),
        (("4,40", "8,30", "4,30"), "convolution(%a, %b), dim_labels=bf_io->bf, feature_group_count=5"),
    ],
)
def test_operations_of_a_batch(types, operation):
    left, right, result = types
    body = f"  %a = f32[{left}] parameter(0)\n  %b = f32[{right}] parameter(1)\n  ROOT %c = f32[{result}] {operation}\n"
    (matmul,) = count(body).matmuls
    assert matmul.flops == 5 * 2 * 4 * 8 * 6


def test_a_convolution_over_positions_sums_over_them():
    body = "  %a = f32[3,4,8] parameter(0)\n  %b = f32[3,8,6] parameter(1)\n"
    body += "  ROOT %c = f32[1,4,6] convolution(%a, %b), window={size=3}, dim_labels=0bf_0io->0bf\n"
    assert count(body).flops == 2 * 4 * (3 * 8) * 6


def test_a_call_of_a_library_is_a_matmul():
    config = 'backend_config={"dot_dimension_numbers":{"lhs_batch_dimensions":[]},"operand_precision":["DEFAULT"]}'
    body = f'  ROOT %g = (f32[4,6], s8[9]) custom-call(%a, %b), custom_call_target="__cublas$gemm", {config}\n'
    found = count(ARGUMENTS + body)
    assert found.flops == 2 * 4 * 8 * 6
    assert found.matmuls[0].precision == "default"
    assert found.kernels == {"library": 1}


LOOP = """\
%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=0
  %y = f32[4,8]{1,0} negate(%x)
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%n, %y)
}
%condition (q: (s32[], f32[4,8])) -> pred[] {
  %q = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}
"""


def test_loops_count_as_often_as_they_run():
    loop = "  %w = (s32[], f32[4,8]{1,0}) while(%s), condition=%condition, body=%body"
    known = loop + ', backend_config={"known_trip_count":{"n":"7"}}\n'
    assert count(ARGUMENTS + known, LOOP).kernels == {"other": 7}
    assert count(ARGUMENTS + known, LOOP).bytes == 7 * 2 * 4 * 8 * 4
    assert count(ARGUMENTS + loop + "\n", LOOP).kernels == {"other": 1}


def test_kinds_of_kernels():
    body = "".join(
        f"  %{name} = f32[4,8]{{1,0}} {operation}\n"
        for name, operation in {
            "c": "copy(%a)",
            "t": "bitcast(%c)",
            "s": "copy-start(%a)",
            "d": "copy-done(%s)",
            "k": 'custom-call(%a), custom_call_target="TopK"',
            "n": 'custom-call(%a), custom_call_target="AssumeGatherIndicesInBound"',
            "r": "reduce(%a)",
        }.items()
    )
    body += "  %number = s32[] add(%m, %m)\n"
    assert count(ARGUMENTS + body).kernels == {"copy": 2, "library": 1, "other": 1}


def test_memory_on_the_chip_is_no_traffic():
    body = "  %c = f32[4,8]{1,0:T(8,128)S(1)} copy(%a)\n  %n = f32[4,8]{1,0} negate(%c)\n"
    assert count(ARGUMENTS + body).bytes == 2 * 4 * 8 * 4


def test_transfers_that_run_beside_other_work():
    body = "  %s = (f32[4,8]{1,0:S(1)}, f32[4,8]{1,0}, u32[]) copy-start(%a)\n"
    assert count(ARGUMENTS + body).bytes == 4 * 8 * 4
    body = "  %s = ((f32[4,8]{1,0}), f32[2,8]{1,0:S(1)}, s32[]) slice-start(%a), slice={[0:2], [0:8]}\n"
    assert count(ARGUMENTS + body).bytes == 2 * 8 * 4


LOOK_UP = """\
%rows (p: f32[1000,8], i: s32[3]) -> f32[3,8] {
  %p = f32[1000,8]{1,0} parameter(0)
  %i = s32[3]{0} parameter(1)
  ROOT %g = f32[3,8]{1,0} gather(%p, %i), offset_dims={1}
}
%place (p: f32[1000,8], u: f32[1,8], i: s32[]) -> f32[1000,8] {
  %p = f32[1000,8]{1,0} parameter(0)
  %u = f32[1,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %d = f32[1000,8]{1,0} dynamic-update-slice(%p, %u, %i, %i)
}
"""


def test_only_the_rows_that_are_looked_up_or_changed_are_traffic():
    table = "  %t = f32[1000,8]{1,0} parameter(0)\n  %i = s32[3]{0} parameter(1)\n"
    fused = table + "  %f = f32[3,8]{1,0} fusion(%t, %i), kind=kCustom, calls=%rows\n"
    assert count(fused, LOOK_UP).bytes == 3 * 8 * 4 + 3 * 4 + 3 * 8 * 4
    plain = table + "  %g = f32[3,8]{1,0} gather(%t, %i), offset_dims={1}\n"
    assert count(plain).bytes == 3 * 8 * 4 + 3 * 4 + 3 * 8 * 4
    changed = table + "  %u = f32[1,8]{1,0} parameter(2)\n  %n = s32[] parameter(3)\n"
    changed += "  %f = f32[1000,8]{1,0} fusion(%t, %u, %n), kind=kLoop, calls=%place\n"
    assert count(changed, LOOK_UP).bytes == 8 * 4 + 4 + 8 * 4


ASYNCHRONOUS = """\
%begin (p: f32[64,4]) -> f32[512,4] {
  %p = f32[64,4]{1,0} parameter(0)
  ROOT %g = f32[512,4]{1,0} all-gather(%p), channel_id=4, dimensions={0}
}
%end (q: f32[64,4]) -> f32[512,4] {
  %q = f32[64,4]{1,0} parameter(0)
  ROOT %h = f32[512,4]{1,0} all-gather(%q), channel_id=4, dimensions={0}
}
"""


def test_collectives():
    body = ARGUMENTS + (
        "  %g = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%a), channel_id=1, dimensions={0}\n"
        "  %d = f32[32,8]{1,0} all-gather-done(%g)\n"
        "  %r = (f32[4,8]{1,0}, f32[8,6]{1,0}) all-reduce(%a, %b), channel_id=2, to_apply=%sum\n"
        "  %s = f32[512,4]{1,0} fusion(%a), kind=kCustom, calls=%begin\n"
        "  %e = f32[512,4]{1,0} fusion(%a), kind=kCustom, calls=%end\n"
    )
    found = count(body, ASYNCHRONOUS).collectives
    assert [(one.kind, [str(result) for result in one.results]) for one in found] == [
        ("all-gather", ["f32[32,8]"]),
        ("all-reduce", ["f32[4,8]", "f32[8,6]"]),
        # Its two halves are one exchange.
        ("all-gather", ["f32[512,4]"]),
    ]
    assert found[1].bytes == (4 * 8 + 8 * 6) * 4


def test_sorts():
    body = '  %s = (f32[4,8], s32[4,8]) sort(%a, %a), dimensions={1}, metadata={op_name="jit(f)/top_k"}\n'
    assert count(ARGUMENTS + body).sorts == [counting.Sort(8, "jit(f)/top_k")]
    assert Array("f32", (4, 8)).bytes == 128
