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

import numpy as np

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import K_BLOCK, ROW_BLOCK, copy_rows, tile_block
from fastrnn.kernels.pack import pack_panel, pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, pointer, set_element, store_first
from fastrnn.kernels.simd import zeros
from fastrnn.kernels.target import TARGET

ROW_COLUMNS, SUM_COLUMNS = TARGET.window_columns, TARGET.sum_columns


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
def rows_before(first, t, N):
    """Rows of the steps before t, which may be no step."""
    if t <= 0:
        return 0
    return first[t] if t < first.size else N


@device
def seen_taps(shifts, t, T):
    """The first tap that sees no step before step 0 from step t, and one past the last; and the next step from which
    more do, T if there is none."""
    start, end, until = np.int64(0), np.int64(0), T
    for tap in range(shifts.size):
        if t + shifts[tap] < 0:
            until = min(until, -shifts[tap])
        else:
            start, end = start if end > 0 else tap, tap + 1
    return start, end, until


@device
def zero_rows(target, target_row, rows, columns):
    """Write `rows` rows of `columns` zeros."""
    width = lanes(target)
    for i in range(rows):
        for j in range(0, columns, width):
            store_first(target + (i * target_row + j), zeros(target), columns - j)


@device
def gather_windows(x, I, first, count, shifts, low, high, left, right, block, stride):
    """Copy the columns left..right-1 of the windows of the rows low..high-1 into a block, `stride` elements a row."""
    begin = step_of(first, low)
    for tap in range(left // I, -(-right // I)):
        start, end = max(left - tap * I, 0), min(right - tap * I, I)
        target, t, row = block + (tap * I + start - left), begin, low
        while row < high:
            rows, sequence, source = min(first[t] + count[t], high) - row, row - first[t], t + shifts[tap]
            present = 0
            if 0 <= source < first.size:
                present = max(0, min(rows, count[source] - sequence))
                copy_rows(target, stride, x + ((first[source] + sequence) * I + start), I, present, end - start)
            zero_rows(target + present * stride, stride, rows - present, end - start)
            target, row, t = target + rows * stride, row + rows, t + 1


@device
def _pack_taps(part, parts, weight, taps, i_stride, o_stride, I, O, panels):
    width = lanes(weight)
    size = panel_size(taps * I, width)
    count = -(-O // width)
    for p in range(split(count, parts, part), split(count, parts, part + 1)):
        for tap in range(taps):
            target, source = panels + (p * size + tap * I * width), weight + (p * width * o_stride + tap)
            pack_panel(target, source, i_stride, o_stride, I, min(width, O - p * width))


@device
def _convolve_part(part, parts, x, I, first, count, shifts, panels, O, bias, y, N, blocks):
    width, none, one = lanes(x), np.int64(0), np.int64(1)  # not literals, for which tile_block would be compiled again
    K = shifts.size * I
    size, stride = panel_size(K, width), min(K, ROW_COLUMNS) + width
    block, last = blocks + part * ROW_BLOCK * stride, split(N, parts, part + 1)
    low = split(N, parts, part)
    while low < last:
        start, end, until = seen_taps(shifts, step_of(first, low), first.size)
        high, target = min(low + ROW_BLOCK, last, rows_before(first, until, N)), y + low * O
        c0, c0_row = bias, none
        for left in range(start * I, max(end * I, 1), ROW_COLUMNS):
            right = min(left + ROW_COLUMNS, end * I)
            gather_windows(x, I, first, count, shifts, low, high, left, right, block, stride)
            tile_block(
                high - low, right - left, block, stride, one, panels + left * width, size, c0, c0_row, target, O, O
            )  # fmt: skip
            c0, c0_row = target, O
        low = high


@layout
def convolve_work(taps, I, O, lanes, parts):
    """Elements of workspace that `convolve` needs."""
    K = taps * I
    return -(-O // lanes) * panel_size(K, lanes) + parts * ROW_BLOCK * (min(K, ROW_COLUMNS) + lanes)


@Kernel
def convolve(x, I, first, count, shifts, weight, i_stride, o_stride, O, bias, y, N, work, parts):
    """y_n = bias + sum_k W_k x at shifts[k] steps from row n, within its sequence.

    x: (N, I), y: (N, O), flat; first, count: (T,) rows of each step; shifts: (taps,) steps.
    weight: flat, element (o, i) of tap k at k + i*i_stride + o*o_stride; bias: at least O numbers.
    work: convolve_work(...) elements. Threads share the rows. Cost: 2*N*O*taps*I flop, and a copy of N*taps*I elements.
    Reference twin: fastrnn.reference.time_delay.time_delay_forward.
    """
    width, taps = lanes(pointer(x)), shifts.size
    panels = pointer(work)
    blocks = panels + -(-O // width) * panel_size(taps * I, width)
    share(parts, _pack_taps, (parts, pointer(weight), taps, i_stride, o_stride, I, O, panels))
    share(
        parts, _convolve_part,
        (parts, pointer(x), I, first, count, shifts, panels, O, pointer(bias), pointer(y), N, blocks),
    )  # fmt: skip


@device
def _pack_rows(part, parts, rows, K, O, panels):
    width = lanes(rows)
    count = -(-O // width)
    pack_range(panels, rows, O, np.int64(1), K, O, split(count, parts, part), split(count, parts, part + 1))


@device
def _add_windows(part, parts, x, I, first, count, shifts, low, high, N, panels, O, c0, c0_row, sums, blocks):
    width, one = lanes(x), np.int64(1)
    K, stride = shifts.size * I, min(shifts.size * I, SUM_COLUMNS) + width
    block, size = blocks + part * K_BLOCK * stride, panel_size(high - low, width)
    left, last = split(K, parts, part), split(K, parts, part + 1)
    while left < last:
        shift, right = shifts[left // I], min(left + SUM_COLUMNS, (left // I + 1) * I, last)
        begin = max(low, rows_before(first, -shift, N))
        end = max(begin, min(high, rows_before(first, first.size - shift, N)))
        gather_windows(x, I, first, count, shifts, begin, end, left, right, block, stride)
        tile_block(
            right - left, end - begin, block, one, stride, panels + (begin - low) * width, size, c0 + left * c0_row,
            c0_row, sums + left * O, O, O,
        )  # fmt: skip
        left = right


@device
def _tap_last(part, parts, sums, taps, I, O, d_weight):
    """d_weight (O, I, taps) = sums (taps, I, O)."""
    for o in range(split(O, parts, part), split(O, parts, part + 1)):
        for i in range(I):
            for tap in range(taps):
                set_element(d_weight + ((o * I + i) * taps + tap), element(sums + ((tap * I + i) * O + o)))


@layout
def weight_gradient_work(taps, I, O, lanes, parts):
    """Elements of workspace that `weight_gradient` needs."""
    K = taps * I
    return -(-O // lanes) * panel_size(K_BLOCK, lanes) + K * O + parts * K_BLOCK * (min(K, SUM_COLUMNS) + lanes)


@Kernel
def weight_gradient(x, I, first, count, shifts, dy, O, zero, d_weight, N, work, parts):
    """d_weight (O, I, taps) = the sum over rows n, first to last, of dy_n times x at shifts[k] steps from row n.

    Parameters as of `convolve`; dy: (N, O); zero: at least O zeros; work: weight_gradient_work(...) elements.
    Threads share the columns of the windows. Cost: 2*N*O*taps*I flop, and a copy of N*taps*I elements.
    Reference twin: fastrnn.reference.time_delay.time_delay_backward.
    """
    width, taps = lanes(pointer(x)), shifts.size
    panels = pointer(work)
    sums = panels + -(-O // width) * panel_size(K_BLOCK, width)
    blocks = sums + taps * I * O
    c0, c0_row = pointer(zero), np.int64(0)
    for low in range(0, max(N, 1), K_BLOCK):
        high = min(low + K_BLOCK, N)
        share(parts, _pack_rows, (parts, pointer(dy) + low * O, high - low, O, panels))
        share(
            parts, _add_windows,
            (parts, pointer(x), I, first, count, shifts, low, high, N, panels, O, c0, c0_row, sums, blocks),
        )  # fmt: skip
        c0, c0_row = sums, O
    share(parts, _tap_last, (parts, sums, taps, I, O, pointer(d_weight)))
