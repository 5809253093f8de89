"""A convolution over time of ragged sequences: products of windows, which exist a block at a time.

Rows lie step after step: step t owns rows first[t] .. first[t]+count[t]-1, one for each of the sequences 0..count[t]-1.
The window of row n, a row of taps*I columns, has side by side what its sequence holds shifts[0], shifts[1], ... steps
away, and zeros beyond the sequence's ends. A block of windows is gathered to where it stays in L2, and is then an
operand of tiles: rows of windows for the outputs, columns of windows for the weights' gradient. The inputs' gradient is
a convolution too, of the outputs' gradient, with the opposite shifts.

Every sum is one chain over the window, or over the rows, as in matmul. Taps at the window's ends that see only what
lies before a sequence's start are left out: which ones they are depends on the step alone. So are a weight's first and
last rows where no sequence has what its tap would see.

Reference twin: fastrnn.reference.time_delay.
"""

from typing import Any, NamedTuple

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import (
    K_BLOCK,
    ROW_BLOCK,
    Matrix,
    Panels,
    Rows,
    by_rows,
    copy_rows,
    repeated,
    tile_block,
    transposed,
    zero_row,
)
from fastrnn.kernels.pack import pack_panel, pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, pointer, set_element
from fastrnn.kernels.target import TARGET
from fastrnn.kernels.workspace import Elements, carve

ROW_COLUMNS, SUM_COLUMNS = TARGET.window_columns, TARGET.sum_columns


class Windows(NamedTuple):
    """What all windows are gathered from."""

    x: Any  # (N, I)
    N: int
    I: int
    first: Any  # (T,) the first row of each step, an array
    count: Any  # (T,) the number of its rows, an array
    shifts: Any  # (taps,) in steps, an array


class Block(NamedTuple):
    """The windows of the rows low..high-1, and of these the columns left..right-1."""

    low: int
    high: int
    left: int
    right: int


@device
def step_of(first, row):
    """The step that owns a row."""
    low, high = 0, first.size
    while high - low > 1:
        middle = (low + high) // 2
        if first[middle] <= row:
            low = middle
        else:
            high = middle
    return low


@device
def rows_before(windows, t):
    """Rows of the steps before t, which may be no step."""
    if t <= 0:
        return 0
    return windows.first[t] if t < windows.first.size else windows.N


@device
def seen_taps(shifts, t, T):
    """The first tap that sees no step before step 0 from step t, and one past the last; and the next step from which
    more do, T if there is none."""
    start, end, until = 0, 0, T
    for tap in range(shifts.size):
        if t + shifts[tap] < 0:
            until = min(until, -shifts[tap])
        else:
            start = start if end > 0 else tap
            end = tap + 1
    return start, end, until


@device
def gather_windows(windows, block, target):
    """Copy a block of windows to Rows."""
    I, first, count, T = windows.I, windows.first, windows.count, windows.first.size
    begin = step_of(first, block.low)
    for tap in range(block.left // I, -(-block.right // I)):
        start = max(block.left - tap * I, 0)
        end = min(block.right - tap * I, I)
        to = target.data + (tap * I + start - block.left)
        t = begin
        row = block.low
        while row < block.high:
            rows = min(first[t] + count[t], block.high) - row
            sequence = row - first[t]
            source = t + windows.shifts[tap]
            present = 0
            if 0 <= source < T:
                present = max(0, min(rows, count[source] - sequence))
                copy_rows(to, target.row, windows.x + ((first[source] + sequence) * I + start), I, present, end - start)
            for i in range(present, rows):
                zero_row(to + i * target.row, end - start)
            to = to + rows * target.row
            row = row + rows
            t = t + 1


class ConvolveRoom(NamedTuple):
    """Workspace of `convolve`."""

    weight: Elements  # in panels, tap after tap
    zero: Elements  # (O,) zeros
    windows: Elements  # a block of rows of windows for each thread


@layout
def window_row(columns, most, width):
    """Elements from row to row of a block of windows of which at most `most` columns are gathered at a time."""
    return min(columns, most) + width


@layout
def convolve_room(taps, I, O, width, threads):
    """The workspace of `convolve`."""
    K = taps * I
    return ConvolveRoom(
        weight=-(-O // width) * panel_size(K, width),
        zero=O,
        windows=threads * ROW_BLOCK * window_row(K, ROW_COLUMNS, width),
    )


@device
def _pack_taps(shard, shards, weight, taps, I, O, panels):
    width = lanes(panels)
    size = panel_size(taps * I, width)
    count = -(-O // width)
    for p in range(split(count, shards, shard), split(count, shards, shard + 1)):
        for tap in range(taps):
            target = panels + (p * size + tap * I * width)
            source = weight.data + (p * width * weight.column + tap)
            pack_panel(target, source, weight.row, weight.column, I, min(width, O - p * width))


@device
def _convolve(shard, shards, windows, bias, y, room):
    width = lanes(y.data)
    N = windows.N
    I = windows.I
    O = y.row
    K = windows.shifts.size * I
    size = panel_size(K, width)
    row = window_row(K, ROW_COLUMNS, width)
    own = Rows(room.windows + shard * ROW_BLOCK * row, row)
    low, last = split(N, shards, shard), split(N, shards, shard + 1)
    while low < last:
        start, end, until = seen_taps(windows.shifts, step_of(windows.first, low), windows.first.size)
        high = min(low + ROW_BLOCK, last, rows_before(windows, until))
        c0 = bias
        c = Rows(y.data + low * O, O)
        for left in range(start * I, max(end * I, 1), ROW_COLUMNS):
            right = min(left + ROW_COLUMNS, end * I)
            gather_windows(windows, Block(low, high, left, right), own)
            panels = Panels(room.weight + left * width, size)
            tile_block(high - low, O, right - left, by_rows(own.data, row), panels, c0, c)
            c0 = c
        low = high


@Kernel
def convolve(x, first, count, shifts, weight, weight_transposed, bias, O, y, work, threads):
    """y_n = bias + sum_k W_k x at shifts[k] steps from row n, within its sequence.

    x: (N, I), y: (N, O), flat; first, count: (T,) rows of each step; shifts: (taps,) steps
    weight: (O, I, taps), or (I, O, taps) if weight_transposed, flat; bias: (O,), or empty for 0
    work: room_size(convolve_room(...)) elements

    Threads share the rows. Cost: 2*N*O*taps*I flop, and a copy of N*taps*I elements.
    Reference twin: fastrnn.reference.time_delay.time_delay_forward.
    """
    taps = shifts.size
    N = y.size // O
    I = weight.size // (taps * O)
    room = carve(pointer(work), convolve_room(taps, I, O, lanes(pointer(work)), threads))
    first_tap = Matrix(pointer(weight), taps, taps * I)  # element (i, o); those of the other taps lie behind it
    if weight_transposed:
        first_tap = Matrix(pointer(weight), taps * O, taps)
    share(threads, _pack_taps, (threads, first_tap, taps, I, O, room.weight))
    start = repeated(pointer(bias))
    if bias.size == 0:
        zero_row(room.zero, O)
        start = repeated(room.zero)
    windows = Windows(pointer(x), N, I, first, count, shifts)
    share(threads, _convolve, (threads, windows, start, Rows(pointer(y), O), room))


class GradientRoom(NamedTuple):
    """Workspace of `weight_gradient`."""

    dy: Elements  # K_BLOCK rows in panels
    sums: Elements  # (taps, I, O)
    zero: Elements  # (O,) zeros
    windows: Elements  # a block of columns of windows for each thread


@layout
def gradient_room(taps, I, O, width, threads):
    """The workspace of `weight_gradient`."""
    return GradientRoom(
        dy=-(-O // width) * panel_size(K_BLOCK, width),
        sums=taps * I * O,
        zero=O,
        windows=threads * K_BLOCK * window_row(taps * I, SUM_COLUMNS, width),
    )


@device
def _pack_rows(shard, shards, rows, K, panels):
    """K rows of which a sum is taken."""
    O = rows.row
    count = -(-rows.row // lanes(panels))
    first, last = split(count, shards, shard), split(count, shards, shard + 1)
    pack_range(panels, rows.data, rows.row, rows.column, K, O, first, last)


@device
def _add_windows(shard, shards, windows, low, high, start, sums, room):
    width = lanes(sums.data)
    O = sums.row
    I = windows.I
    T = windows.first.size
    K = windows.shifts.size * I
    row = window_row(windows.shifts.size * I, SUM_COLUMNS, width)
    own = Rows(room.windows + shard * K_BLOCK * row, row)
    size = panel_size(high - low, width)
    left, last = split(K, shards, shard), split(K, shards, shard + 1)
    while left < last:
        shift = windows.shifts[left // I]
        right = min(left + SUM_COLUMNS, (left // I + 1) * I, last)
        begin = max(low, rows_before(windows, -shift))
        end = max(begin, min(high, rows_before(windows, T - shift)))
        gather_windows(windows, Block(begin, end, left, right), own)
        columns = transposed(by_rows(own.data, row))
        panels = Panels(room.dy + (begin - low) * width, size)
        c0, c = Rows(start.data + left * start.row, start.row), Rows(sums.data + left * O, O)
        tile_block(right - left, O, end - begin, columns, panels, c0, c)
        left = right


@device
def _tap_last(shard, shards, sums, taps, I, O, d_weight):
    """d_weight (O, I, taps) = sums (taps, I, O)."""
    for o in range(split(O, shards, shard), split(O, shards, shard + 1)):
        for i in range(I):
            for tap in range(taps):
                set_element(d_weight + ((o * I + i) * taps + tap), element(sums + ((tap * I + i) * O + o)))


@Kernel
def weight_gradient(x, first, count, shifts, dy, O, d_weight, work, threads):
    """d_weight (O, I, taps) = the sum over rows n, first to last, of dy_n times x at shifts[k] steps from row n.

    Parameters as of `convolve`; dy: (N, O), flat; work: room_size(gradient_room(...)) elements

    Threads share the columns of the windows. Cost: 2*N*O*taps*I flop, and a copy of N*taps*I elements.
    Reference twin: fastrnn.reference.time_delay.time_delay_backward.
    """
    taps = shifts.size
    N = dy.size // O
    I = d_weight.size // (taps * O)
    room = carve(pointer(work), gradient_room(taps, I, O, lanes(pointer(work)), threads))
    windows = Windows(pointer(x), N, I, first, count, shifts)
    rows = by_rows(pointer(dy), O)
    sums = Rows(room.sums, O)
    zero_row(room.zero, O)
    start = repeated(room.zero)
    for low in range(0, max(N, 1), K_BLOCK):
        high = min(low + K_BLOCK, N)
        block = Matrix(rows.data + low * O, rows.row, rows.column)
        share(threads, _pack_rows, (threads, block, high - low, room.dy))
        share(threads, _add_windows, (threads, windows, low, high, start, sums, room))
        start = sums
    share(threads, _tap_last, (threads, room.sums, taps, I, O, pointer(d_weight)))
