"""Vectors of sixteen numbers inside loops that numba compiles, bf16 in memory and float32 at work.

numba has no word for vectors and leaves them to the compiler, which finds few of them where several arrays might
overlap. Here they are values like any other: loaded, added, multiplied and stored. The processor's product of pairs of
bf16 (AVX-512 BF16) is called by its name in LLVM. bf16 in arrays are uint16, pairs of them uint32.

numba keeps a compiled loop until the file of the *loop* changes: whoever changes this one touches those that import it.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16                                  # numbers in a vector


class _LanesType(types.Type):
    """A vector of `LANES` float32 in a register."""

    def __init__(self) -> None:
        super().__init__(name='Lanes')


class _BFloat(ir.types.Type):
    """The 16 bits of a bf16, which llvmlite has no word for."""

    null, intrinsic_name = '0.0', 'bf16'

    def __str__(self) -> str:
        return 'bfloat'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_LANES = _LanesType()
_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_F32S, _I32S, _I16S = (ir.VectorType(one, LANES) for one in (_F32, _I32, _I16))
_BF16S, _PAIRS = ir.VectorType(_BFloat(), LANES), ir.VectorType(_BFloat(), 2 * LANES)
_ZEROS = ir.Constant(_F32S, [0.0] * LANES)


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any):
        super().__init__(manager, kind, _F32S)


def _point_at(context: Any, builder: Any, wanted: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return the address of element `index` of a flat `array` of some `kind`, as that of a `wanted` type."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), wanted.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Return `LANES` float32 from a flat array."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_point_at(context, builder, _F32S, array, *arguments), align=4)

    return _LANES(array, types.intp), generate


@intrinsic
def widen(typingctx: Any, array: Any, index: Any) -> Any:
    """Return `LANES` bf16 from a flat array, which are the upper halves of float32."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _extend(builder, builder.load(_point_at(context, builder, _I16S, array, *arguments), align=2))

    return _LANES(array, types.intp), generate


@intrinsic
def store_rounded(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Store `value` in a flat array as bf16, rounded to the nearest; return what it has become."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(builder.fptrunc(arguments[2], _BF16S), _I16S)
        builder.store(bits, _point_at(context, builder, _I16S, array, *arguments[:2]), align=2)
        return _extend(builder, bits)

    return _LANES(array, types.intp, _LANES), generate


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Store `value` in a flat array of float32."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _point_at(context, builder, _F32S, array, *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES), generate


@intrinsic
def repeat(typingctx: Any, value: Any) -> Any:
    """Return `value` in every lane."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0], _F32S)

    return _LANES(types.float32), generate


@intrinsic
def rectify(typingctx: Any, value: Any) -> Any:
    """Return the positive part."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered('<', arguments[0], _ZEROS), _ZEROS, arguments[0])

    return _LANES(_LANES), generate


@intrinsic
def rectify_leaky(typingctx: Any, value: Any, slope: Any) -> Any:
    """Return `value` where it is positive, elsewhere `slope` times it."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_negative = builder.fcmp_ordered('<', arguments[0], _ZEROS)
        return builder.select(is_negative, builder.fmul(*arguments), arguments[0])

    return _LANES(_LANES, _LANES), generate


def _extend(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(bits, _I32S), ir.Constant(_I32S, [16] * LANES)), _F32S)


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    undefined, first = ir.Constant(kind, ir.Undefined), ir.Constant(_I32, 0)
    return builder.shuffle_vector(builder.insert_element(undefined, value, first), undefined,
                                  ir.Constant(_I32S, [0] * LANES))


def _give_operator(function: Callable[..., Any], instruction: str) -> None:
    """Teach numba what `function` does to two vectors."""
    @intrinsic
    def combine(typingctx: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return _LANES(_LANES, _LANES), generate

    @overload(function)
    def choose(left, right):                # type: ignore[no-untyped-def]  # numba compares the signatures
        are_lanes = isinstance(left, _LanesType) and isinstance(right, _LanesType)
        return (lambda left, right: combine(left, right)) if are_lanes else None


for _function, _instruction in ((operator.add, 'fadd'), (operator.sub, 'fsub'), (operator.mul, 'fmul')):
    _give_operator(_function, _instruction)


def make_product(n_rows: int, n_vectors: int) -> Callable[..., Any]:
    """Return what multiplies `n_rows` rows of a matrix by `n_vectors` vectors of columns.

    Their sums should just leave room for the factors in 32 registers. It is called
    with (maps, start, filters, first, n_pairs, products, target):

    maps, start : flat uint32, pairs of bf16; row r begins at ``start + r n_pairs``.
    filters, first : flat uint32, pairs of bf16; from `first`, (n_pairs, n_vectors LANES).
    products, target : flat float32; from `target`, (n_rows, n_vectors LANES) are stored.
    """
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def point(array: int, index: Any, kind: Any) -> Any:
            return _point_at(context, builder, kind, signature.args[array], arguments[array], index)

        def count(value: int) -> Any:
            return ir.Constant(_I64, value)

        n = arguments[4]
        rows = [point(0, builder.add(arguments[1], builder.mul(n, count(row))), _I32) for row in range(n_rows)]
        panel = point(2, arguments[3], _I32S)
        entry, loop, done = builder.block, builder.append_basic_block('loop'), builder.append_basic_block('done')
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_I64)
        sums = [[builder.phi(_F32S) for _ in range(n_vectors)] for _ in range(n_rows)]
        name, kind = 'llvm.x86.avx512bf16.dpbf16ps.512', ir.FunctionType(_F32S, [_F32S, _PAIRS, _PAIRS])
        product = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        base = builder.mul(k, count(n_vectors))
        columns = [builder.bitcast(builder.load(builder.gep(panel, [builder.add(base, count(one))]), align=4), _PAIRS)
                   for one in range(n_vectors)]
        after = builder.add(k, count(1))
        k.add_incoming(count(0), entry)
        k.add_incoming(after, loop)
        for row, of_row in zip(rows, sums, strict=True):
            pair = builder.bitcast(_spread(builder, builder.load(builder.gep(row, [k]), align=4), _I32S), _PAIRS)
            for column, old in zip(columns, of_row, strict=True):
                old.add_incoming(_ZEROS, entry)
                old.add_incoming(builder.call(product, [old, pair, column]), loop)
        builder.cbranch(builder.icmp_signed('<', after, n), loop, done)
        builder.position_at_end(done)
        for index, old in enumerate(one for of_row in sums for one in of_row):
            place = builder.add(arguments[6], count(index * LANES))
            builder.store(old.incomings[1][0], point(5, place, _F32S), align=4)
        return context.get_dummy_value()

    @intrinsic
    def multiply(typingctx: Any, maps: Any, start: Any, filters: Any, first: Any, n_pairs: Any, products: Any,
                 target: Any) -> Any:
        number = types.intp
        return types.void(maps, number, filters, number, number, products, number), generate

    return multiply
