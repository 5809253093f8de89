"""Count what matters in a kernel's assembly: `python tools/asm.py KERNEL [--dtype ...] [--cell ...] [--text]`.

KERNEL is `tile` or a kernel that Python calls, such as `recurrent_forward`; the kernels that it calls are part of it.
Numba keeps no assembly of what it loads from its disk cache, so the kernel is compiled anew, for the argument types
that a small training run gives it.

All counts come from the text. A function ends where the next one starts. Loops are the natural loops of its jumps: a
head, and every block on a way from the head back to it. Known are x86 (SSE, AVX2, AVX-512) and AArch64 (NEON).
"""

import importlib
import pkgutil
import re
from dataclasses import dataclass, field
from typing import NamedTuple

import click
import numba
import numpy as np

import fastrnn
import fastrnn.kernels
from fastrnn.kernels import jit

_LABEL = re.compile(r"^(\.?L[\w.$]*):")
_FUNCTION = re.compile(r'^"?([A-Za-z_][^\s"]*)"?:')
_INSTRUCTION = re.compile(r"^\s+([a-z][\w.]*)(?:\s+(.*))?$")
_JUMP = re.compile(r"^(?:j[a-z]+|b|b\.[a-z]+|br|cbn?z|tbn?z)$")
_NO_WAY_ON = re.compile(r"^(?:jmpq?|b|br|ret[a-z]?|ud2|brk)$")
_FMA = re.compile(r"^(?:vfn?m(?:add|sub)\d+p[sd]|fml[as])$")
_PRODUCT = re.compile(r"^(?:v?mulp[sd]|fmul)$")
# x86 names a scalar in the mnemonic, AArch64 in the operands.
_X86_ARITHMETIC = r"(?:add|sub|mul|div|sqrt|min|max|u?comi|round|rndscale|fn?m(?:add|sub)\d+)s[sd]"
_SCALAR_X86 = re.compile(rf"^v?(?:{_X86_ARITHMETIC}|cvt\w*(?:s[sd]\w*|ps2pd|pd2ps))$")
_SCALAR_ARM = re.compile(r"^(?:fn?m?(?:add|sub|mul)|f(?:div|sqrt|min|max|cmp|cvt)\w*|[su]cvtf) [hsd]\d")
_VECTOR_REGISTER = re.compile(r"%[xyz]mm\d|\b[qv]\d")
_STACK = re.compile(r"\(%rsp|\[sp\b")
_STACK_OR_FRAME = re.compile(r"\(%r[sb]p|\[(?:sp|x29)\b")
_SYMBOL = re.compile(r"(?:^callq? |^bl |^movabsq \$|:got:|:abs_g3:)([A-Za-z_][\w.$]*)")
_LIBM_NAMES = "a?(?:sin|cos|tan)h?|exp2?|expm1|log(?:2|10|1p|b)?|pow|fma|fmod|ldexp|floor|ceil|round|sqrt"
_LIBM = re.compile(rf"^_?(?:{_LIBM_NAMES})[fl]?$")


CELLS = ("ElmanTanh", "GRU", "GRUResetBefore", "LSTM")  # the tags that `train` runs


class Loop(NamedTuple):
    """Counts of one loop, the loops inside it included."""

    label: str
    innermost: bool
    instructions: int
    fma: int  # vector multiply-adds
    products: int  # vector multiplications; without FMA, the products of the multiply-adds
    spills: int  # vector instructions that touch the stack
    scalar: int  # scalar float arithmetic, and conversions from or to floats


class Function(NamedTuple):
    """One function: its loops in order of their heads, and the symbols from elsewhere that it names."""

    name: str
    loops: tuple[Loop, ...]
    external: tuple[str, ...]

    @property
    def libm(self) -> tuple[str, ...]:
        """The external symbols that are functions of the C mathematics library."""
        return tuple(symbol for symbol in self.external if _LIBM.match(symbol))


@dataclass
class _Block:
    """Instructions that run one after the other, `mnemonic operands` each."""

    label: str
    body: list[str] = field(default_factory=list)
    before: set[int] = field(default_factory=set)  # the blocks that lead here


def _blocks(lines: list[str]) -> list[_Block]:
    blocks, jumps = [_Block("entry")], []
    for line in lines:
        label, instruction = _LABEL.match(line), _INSTRUCTION.match(line)
        last = blocks[-1].body[-1].split()[0] if blocks[-1].body else ""
        stops = _NO_WAY_ON.match(last)
        if label or (instruction and (stops or _JUMP.match(last))):
            blocks.append(_Block(label[1] if label else "", before=set() if stops else {len(blocks) - 1}))
        if instruction:
            mnemonic, operands = instruction[1], instruction[2] or ""
            blocks[-1].body.append(f"{mnemonic} {operands}")
            if _JUMP.match(mnemonic):
                jumps.append((len(blocks) - 1, re.split(r"[\s,]+", operands)[-1]))
    places = {block.label: i for i, block in enumerate(blocks) if block.label}
    for source, target in jumps:
        if target in places:
            blocks[places[target]].before.add(source)
    for block in blocks[1:]:
        block.before = block.before or {0}  # reached through a table of jumps
    return blocks


def _natural_loops(blocks: list[_Block]) -> dict[int, set[int]]:
    """The blocks of each loop, by its head."""
    loops: dict[int, set[int]] = {}
    for head, block in enumerate(blocks):
        for last in block.before:
            members, waiting = {head}, [last]
            while waiting:
                member = waiting.pop()
                if member not in members:
                    members.add(member)
                    waiting += blocks[member].before
            if head == 0 or 0 not in members:  # every way to `last` goes through the head
                loops[head] = loops.get(head, set()) | members
    return loops


def _is_scalar(instruction: str) -> bool:
    return bool(_SCALAR_X86.match(instruction.split()[0]) or _SCALAR_ARM.match(instruction))


def _loop(label: str, innermost: bool, body: list[str], stack: re.Pattern[str]) -> Loop:
    vectors = [instruction for instruction in body if not _is_scalar(instruction)]
    return Loop(
        label,
        innermost,
        len(body),
        fma=sum(bool(_FMA.match(instruction.split()[0])) for instruction in vectors),
        products=sum(bool(_PRODUCT.match(instruction.split()[0])) for instruction in vectors),
        spills=sum(bool(stack.search(instruction) and _VECTOR_REGISTER.search(instruction)) for instruction in vectors),
        scalar=len(body) - len(vectors),
    )


def _function(name: str, lines: list[str], defined: set[str]) -> Function:
    blocks = _blocks(lines)
    body = [instruction for block in blocks for instruction in block.body]
    stack = _STACK_OR_FRAME if {"movq %rsp, %rbp", "mov x29, sp"} & set(body) else _STACK
    named = [match[1] for match in map(_SYMBOL.search, body) if match]
    loops = _natural_loops(blocks)
    return Function(
        _readable(name),
        tuple(
            _loop(
                blocks[head].label,
                not any(other in members for other in loops if other != head),
                [instruction for i in sorted(members) for instruction in blocks[i].body],
                stack,
            )
            for head, members in sorted(loops.items())
        ),
        tuple(dict.fromkeys(symbol for symbol in named if symbol not in defined)),
    )


def _readable(symbol: str) -> str:
    """The function's own name within a symbol of Numba's: lengths and parts after _ZN, then the types."""
    _, _, rest = symbol.partition("_ZN")
    name = symbol
    while match := re.match(r"\d+", rest):
        name, rest = rest[match.end() :][: int(match[0])], rest[match.end() + int(match[0]) :]
    return name


def _is_wrapper(symbol: str) -> bool:
    """Whether Numba made the function to pass arguments on, or to count references."""
    return symbol.startswith(("_ZN7cpython", "cfunc.", "NRT_"))


def counts(assembly: str) -> list[Function]:
    """What each function of an assembly holds; Numba's own wrappers are left out."""
    bodies: list[tuple[str, list[str]]] = []
    for line in assembly.splitlines():
        if (start := _FUNCTION.match(line)) and not _LABEL.match(line):
            bodies.append((start[1], []))
        elif bodies:
            bodies[-1][1].append(line)
    defined = {name for name, _ in bodies}
    return [
        _function(name, lines, defined)
        for name, lines in bodies
        if not _is_wrapper(name) and any(map(_INSTRUCTION.match, lines))
    ]


def kernels() -> dict[str, jit.Kernel]:
    """The kernels that have been called from Python, by name."""
    names = [module.name for module in pkgutil.walk_packages(fastrnn.kernels.__path__, "fastrnn.kernels.")]
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    called = [value for value in values if isinstance(value, jit.Kernel) and value.compiled.signatures]
    return {kernel.compiled.__name__: kernel for kernel in called}


def train(dtype: str) -> None:
    """A few small steps through the public interface, from which the kernels learn their argument types."""
    rng = np.random.default_rng(0)
    x, tokens = rng.standard_normal((4, 2, 3)).astype(dtype), rng.integers(0, 2, (4, 2))
    layers = [kind(3, 5, dtype=dtype) for kind in (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM, fastrnn.Linear)]
    for layer in (*layers, fastrnn.GRU(3, 5, reset_after=False, dtype=dtype)):
        y, pullback = layer.vjp(x)
        pullback(*y) if isinstance(y, tuple) else pullback(y)
    y, pullback = fastrnn.Embedding(2, 5, dtype=dtype).vjp(tokens)
    pullback(y)
    fastrnn.cross_entropy(x, tokens)[1](1.0)
    lm = fastrnn.models.CharLM("ab", hidden_size=5, embedding_size=3, dtype=dtype, seed=0)
    for name in ("SGD", "Adagrad", "RMSprop", "Adam"):
        lm.train_step(tokens, tokens, None, getattr(fastrnn.optim, name)(lm.parameters), clip_norm=1.0)


def _is_for(signature: tuple, dtype: str, cell: str) -> bool:
    tags = [argument.instance_class for argument in signature if hasattr(argument, "instance_class")]
    return str(signature[0].dtype) == dtype and all(tag.__name__ == cell for tag in tags)


def assembly(name: str, dtype: str, cell: str = "ElmanTanh") -> str:
    """The assembly of the shared function `tile`, or of a kernel that has run with this dtype; compiled anew.

    cell: of the kernels that run one, the name of its tag in fastrnn.kernels.cells.
    """
    for describe in jit._symbols:
        symbol, signature, function = describe(dtype)
        if symbol.startswith(f"fastrnn_{name}_"):
            return numba.cfunc(signature, **jit._FLAGS)(function)._library.get_asm_str()
    known = kernels()[name].compiled
    fresh = numba.njit(known.py_func, **jit._FLAGS)
    for signature in known.signatures:
        if _is_for(signature, dtype, cell):
            fresh.compile(signature)
    return "\n".join(fresh.inspect_asm().values())


@click.command()
@click.argument("kernel")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--cell", type=click.Choice(sorted(CELLS)), default="ElmanTanh", show_default=True)
@click.option("--text", is_flag=True, help="Print the assembly, too.")
def main(kernel: str, dtype: str, cell: str, text: bool) -> None:
    """Count multiply-adds, spills and scalar float instructions in the innermost loops of KERNEL that hold any."""
    train(dtype)
    if kernel != "tile" and kernel not in kernels():
        raise click.ClickException(f"KERNEL: expected tile or one of {', '.join(sorted(kernels()))}, got {kernel!r}")
    code = assembly(kernel, dtype, cell)
    if text:
        click.echo(code)
    click.echo(f"{'instructions':>12} {'fma':>5} {'mul':>5} {'spills':>6} {'scalar':>6}  loop")
    for function in counts(code):
        click.echo(f"{function.name}: names {', '.join(function.external) or 'nothing'} from elsewhere")
        for loop in function.loops:
            if (loop.innermost and (loop.fma or loop.products or loop.spills)) or loop.scalar:
                numbers = f"{loop.instructions:12} {loop.fma:5} {loop.products:5} {loop.spills:6} {loop.scalar:6}"
                click.echo(f"{numbers}  {loop.label}")


if __name__ == "__main__":
    main()
