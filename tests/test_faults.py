"""Faults planted in a copy of the sources: the tests that should see each of them do fail."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fastrnn.functional import losses

ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """A piece of text that occurs once in a file of fastrnn, what takes its place, and a test that must fail."""

    file: str
    old: str
    new: str
    test: str


LAYER = "test_sequence.py::test_values_and_gradients[(17, 7, 33, 31)-recurrent {} {}-float32]"
TANH, RELU, TOKENS = LAYER.format("tanh", "x"), LAYER.format("relu", "x"), LAYER.format("tanh", "tokens")
TABLE, LSTM, GRU = LAYER.format("tanh", "table"), LAYER.format("lstm", "x"), LAYER.format("gru", "x")
PEEPHOLES, BEFORE = LAYER.format("lstm_all", "x"), LAYER.format("gru_reset_before", "x")
RAGGED = "test_sequence.py::test_directions_and_lengths[(4, 3, 3, 2)-{}-recurrent tanh x-float32]"
TREES = "test_recursive.py::test_values_and_gradients[3-15-20-{}-{}-float64]"
DELAYS = "test_time_delay.py::test_values_and_gradients[(6, 5, 16, 17, 5)-float32]"
RAGGED, BACKWARDS = RAGGED.format("forwards"), RAGGED.format("reverse")
NORM = "test_contract.py::test_values_and_every_gradient_by_complex_steps[{}-False-LayerNormLSTM]"
STEP = "test_cells.py::test_random_values[{}-float32]"
UPDATE = "test_update.py::test_updates[(33, 20)-{}-float32]"

QUICK = {
    "pack: a block's transpose from the wrong row": Fault(
        "kernels/pack.py", "source + k, n_stride)", "source, n_stride)", "test_pack.py::test_panels"
    ),
    "embedding: rows written instead of added": Fault(
        "kernels/embedding.py", "load_first(target + j, D - j) + load_first(source + j, D - j)",
        "load_first(source + j, D - j)", "test_embedding.py::test_values_and_gradients",
    ),
    "update: a missing factor": Fault(
        "kernels/update.py", "fma(step * step, 1.0 - alpha, ", "fma(step * step, 1.0, ", UPDATE.format("RMSprop")
    ),
    "optim: the decay without the learning rate": Fault(
        "optim.py", "1.0 - self.lr * self.weight_decay", "1.0 - self.weight_decay", UPDATE.format("AdamW")
    ),
    "cells: a slope without a factor": Fault(
        "kernels/cells/lstm.py", "c_prev * (f * (1.0 - f))", "c_prev * (1.0 - f)", STEP.format("lstm")
    ),
    "cells: a reset gate's gradient from the wrong side": Fault(
        "kernels/cells/gru.py", "dz_r = dz_n * h_n", "dz_r = dz_n * n", STEP.format("gru")
    ),
    "cells: a message that is not reset backwards": Fault(
        "kernels/cells/gru.py", "fma(d_message, r, dh * z)", "d_message + dh * z", STEP.format("gru_reset_before")
    ),
}  # fmt: skip

FAULTS = {
    "cells: a slope that is right but for its last bits": Fault(
        "kernels/cells/elman.py", "fma(-h, h, 1.0)", "(1.0 - h * h)",
        "test_bits.py::test_bits_are_those_that_are_kept[recurrent tanh x float32]",
    ),
    "pointers: a lane too many": Fault(
        "kernels/pointers.py", 'builder.icmp_signed("<", index', 'builder.icmp_signed("<=", index',
        "test_simd.py::test_moves_at_every_byte_offset",
    ),
    "workspace: parts that begin where the one before ends": Fault(
        "kernels/workspace.py", "start = aligned(end, part.align)", "start = end",
        "test_workspace.py::test_python_and_kernels_find_the_same_places",
    ),
    "workspace: a size for memory that begins at a line": Fault(
        "kernels/workspace.py", "_, end = _places(room, own)\n    return -(-(end + LINE) // own)",
        "_, end = _places(room, own)\n    return -(-end // own)",
        "test_workspace.py::test_a_workspace_is_as_large_as_its_parts",
    ),
    "workspace: a part of another dtype that is counted like the others": Fault(
        "kernels/workspace.py", "room[i] * (own[i] * itemsize + other[i])", "room[i] * itemsize",
        "test_workspace.py::test_python_and_kernels_find_the_same_places",
    ),
    "parallel: a thread's every shard is its first": Fault(
        "kernels/parallel.py", "builder.add(first, loop.index)", "first",
        "test_jit.py::test_threads_that_share_kernels[workqueue]",
    ),
    "parallel: the shards' number": Fault(
        "kernels/parallel.py", "builder.ptrtoint(builder.load(pointers), _INT), _INT(8)",
        "builder.ptrtoint(builder.load(pointers), _INT), _INT(16)", "test_parallel.py::test_every_shard_runs_once",
    ),
    "vmath: a term too few": Fault(
        "kernels/vmath.py", "range(2, exp_terms + 1)", "range(2, exp_terms)", "test_vmath.py::test_errors"
    ),
    "vmath: tanh without a sign": Fault(
        "kernels/vmath.py", "bits(bits(ratio) | (bits(x) ^ bits(a)))", "ratio", "test_vmath.py::test_special_values"
    ),
    "vmath: sigmoid without its tail": Fault(
        "kernels/vmath.py", "return select(x < -0.7, (a + fma(-m, ratio, b)) * f * g, ratio)",
        "return select(x < 0.0, (e + 1.0) * -1.0 + 1.0, ratio) * ratio",
        "test_vmath.py::test_small_results_keep_their_digits",
    ),
    "tile: a term too many": Fault(
        "kernels/tile.py", 'builder.icmp_signed("<", k_next', 'builder.icmp_signed("<=", k_next',
        "test_tile.py::test_every_shape_is_exact",
    ),
    "tile: a whole last vector": Fault(
        "kernels/tile.py", "pointers.masked_store(builder, total, target, arg[\"tail\"], size)",
        "builder.store(total, target, align=size)", "test_tile.py::test_every_tail",
    ),
    "pack: the last row left out": Fault(
        "kernels/pack.py", "for rest in range(k, K)", "for rest in range(k, K - 1)", "test_pack.py::test_panels"
    ),
    "pack: gates in the wrong order": Fault(
        "kernels/pack.py", "(p % gates * N + n)", "((gates - 1 - p % gates) * N + n)", "test_pack.py::test_panels"
    ),
    "matmul: the last column left out": Fault(
        "kernels/matmul.py", "tail = min(width, columns - n - (v - 1) * width)",
        "tail = min(width, max(1, columns - n - (v - 1) * width - 1))", "test_matmul.py::test_products_are_exact",
    ),
    "matmul: blocks that forget the blocks before": Fault(
        "kernels/matmul.py", "start = c\n", "start = c0\n",
        "test_matmul.py::test_blocks_of_the_sum",
    ),
    "matmul: a row not copied": Fault(
        "kernels/matmul.py", "source, a.row, count, K)", "source, a.row, count - 1, K)",
        "test_matmul.py::test_crowded_strides",
    ),
    "matmul: a sum without the first row": Fault(
        "kernels/matmul.py", "for i in range(rows):\n            sums", "for i in range(1, rows):\n            sums",
        "test_matmul.py::test_column_sums",
    ),
    "cells: swapped factors of tanh's slope": Fault(
        "kernels/cells/elman.py", "dh * fma(-h, h, 1.0)", "h * fma(-dh, dh, 1.0)", STEP.format("tanh")
    ),
    "cells: relu's slope on the wrong side": Fault(
        "kernels/cells/elman.py", "select(h > 0.0, dh, 0.0)", "select(h > 0.0, 0.0, dh)", STEP.format("relu")
    ),
    "cells: an output gate that peeps at the state before": Fault(
        "kernels/cells/lstm.py", "peep(cell, 2, unit, z_o, c))", "peep(cell, 2, unit, z_o, c_prev))",
        STEP.format("lstm_peepholes"),
    ),
    "cells: a state that forgets nothing backwards": Fault(
        "kernels/cells/lstm.py", "peep(cell, 0, unit, dc * f, dz_i)", "peep(cell, 0, unit, dc, dz_i)", LSTM
    ),
    "cells: a peephole's gradient from the state before": Fault(
        "kernels/cells/lstm.py", "fma(dz_o, c, d_o)", "fma(dz_o, c_prev, d_o)", PEEPHOLES
    ),
    "stages: no carry": Fault(
        "kernels/stages.py", "bounded(d_h + dy", "bounded(dy", TANH
    ),
    "stages: a unit that nobody hears": Fault(
        "kernels/stages.py", "blocks * F - w), P, h_prev", "blocks * F - w), P - 1, h_prev", TANH
    ),
    "stages: the last unit's gradient left out": Fault(
        "kernels/stages.py", "store_many_first(downstream.dz + (q * C * H + unit), H, dz, valid)",
        "store_many_first(downstream.dz + (q * C * H + unit), H, dz, valid - 1)", TANH,
    ),
    "sequence: the first state without its product": Fault(
        "kernels/sequence.py", "rows = order.count[0] if T > 0 else 0", "rows = 0 * T", TANH
    ),
    "sequence: rows that go on after their end": Fault(
        "kernels/sequence.py", "order.count[t + 1]", "order.count[t]", RAGGED
    ),
    "sequence: units beyond the projection left out": Fault(
        "kernels/sequence.py", "    blocks = padded(sizes.H, width)", "    blocks = padded(sizes.P, width)",
        LAYER.replace("float32", "float64").format("lstm_all", "x"),
    ),
    "packed: no bias": Fault(
        "kernels/packed.py", "total if own_hidden else total + other", "total * 0", RELU
    ),
    "packed: both biases outside the reset": Fault(
        "kernels/packed.py", "total if own_hidden else total + other", "total + other", GRU
    ),
    "gradients: a part's gradient for the whole": Fault(
        "kernels/gradients.py", "by_rows(dz + gates(cell) * H, K)", "by_rows(dz + (gates(cell) - 1) * H, K)", GRU
    ),
    "gradients: one for two biases": Fault(
        "kernels/gradients.py", "k - first + gates(cell) * H if own_hidden else k", "k", GRU
    ),
    "recurrent: the message's weights from the output": Fault(
        "kernels/recurrent.py", "by_rows(parts.messages, H)", "by_rows(pointer(y), own.y_row)", BEFORE
    ),
    "recurrent: the state of the wrong step": Fault(
        "kernels/recurrent.py", "Rows(pointer(h), own.h_row)", "Rows(pointer(y), own.y_row)", TANH
    ),
    "gradients: tokens' not transposed": Fault(
        "kernels/gradients.py", "room.d_rows + (v * K + k)", "room.d_rows + (k * V + v)", TOKENS
    ),
    "gradients: the table's through the wrong rows": Fault(
        "kernels/gradients.py", "by_rows(pointer(table), I), none", "by_rows(pointer(W_ih), I), none", TABLE
    ),
    "sums: without the last unit": Fault(
        "kernels/sums.py", "R + s) * width, H - v * width)", "R + s) * width, H - v * width - 1)",
        NORM.format("dense"),
    ),
    "sequence: terms of other rows": Fault(
        "kernels/sequence.py", "own_reduction(cell, shard, begin, sizes, order.cut, room.sums)\n            if",
        "own_reduction(cell, shard, own.low, sizes, order.cut, room.sums)\n            if", NORM.format("ragged"),
    ),
    "gradients: what is noted, a vector too far": Fault(
        "kernels/gradients.py", "(A - noted(cell)) * width), width)", "(A - noted(cell) - 1) * width), width)",
        NORM.format("dense"),
    ),
    "ragged: a reverse that starts at the longest end": Fault(
        "ragged.py", "first[lengths[sequence] - 1 - s]", "first[lengths[0] - 1 - s]", BACKWARDS
    ),
    "ragged: the step before, a row too far": Fault(
        "ragged.py", "previous = np.arange(N) + B - ", "previous = np.arange(N) + B + 1 - ", RAGGED
    ),
    "loss: softmax without its target": Fault(
        "kernels/loss.py", "element(d + target) - scale)", "element(d + target))",
        "test_loss.py::test_values_and_gradients",
    ),
    "reduce: the last lane's logit overlooked": Fault(
        "kernels/reduce.py", "for i in range(1, width):", "for i in range(1, width - 1):",
        "test_loss.py::test_extreme_logits",
    ),
    "loss: blocks that forget the blocks before": Fault(
        "kernels/loss.py", "sums if add else zero, sums", "zero, sums",
        "test_loss.py::test_blocks_of_logits",
    ),
    "update: Nesterov without the gradient": Fault(
        "kernels/update.py", "fma(v, momentum, step) if nesterov", "fma(v, momentum, v) if nesterov",
        UPDATE.format("SGD Nesterov"),
    ),
    "update: Adam's swapped weights": Fault(
        "kernels/update.py", "fma(step - m, 1.0 - beta1, m)", "fma(step - m, beta1, m)", UPDATE.format("Adam")
    ),
    "update: a norm without the last element": Fault(
        "kernels/update.py", "min(size, (i + 1) * NORM_BLOCK)", "min(size - 1, (i + 1) * NORM_BLOCK)",
        "test_update.py::test_norm",
    ),
    "stages: a limit that swallows NaN": Fault(
        "kernels/stages.py", "select(x > limit, limit, select(x < -limit, -limit, x))",
        "select(x < limit, select(x > -limit, x, -limit), limit)",
        "test_sequence.py::test_a_limit_lets_nan_through",
    ),
    "functional: gradients of steps in the order of the loop": Fault(
        "functional/recurrence.py", "picked(own_d_hs, order, out=d_hs)", "d_hs[...] = own_d_hs", BACKWARDS
    ),
    "flow: the first bad step of the other direction": Fault(
        "flow.py", "bad.min() if self.reverse else bad.max()", "bad.max() if self.reverse else bad.min()",
        "test_flow.py::test_the_first_bad_step[True]",
    ),
    "time_delay: a sequence that reads its neighbour's rows": Fault(
        "kernels/time_delay.py", "min(rows, count[source] - sequence)", "rows",
        "test_time_delay.py::test_directions_and_lengths[(3, 2)-ragged-float32]",
    ),
    "time_delay: zeros that are not written": Fault(
        "kernels/time_delay.py", "for i in range(present, rows):", "for i in range(present, present):", DELAYS
    ),
    "time_delay: taps left out for one step too many": Fault(
        "kernels/time_delay.py", "until = min(until, -shifts[tap])", "until = T", DELAYS
    ),
    "time_delay: a weight's rows cut a step short": Fault(
        "kernels/time_delay.py", "rows_before(windows, T - shift)", "rows_before(windows, T - shift - 1)", DELAYS
    ),
    "time_delay: an inputs' gradient that looks the same way": Fault(
        "functional/time_delay.py", "convolved(dy, -shifts", "convolved(dy, shifts",
        "test_time_delay.py::test_directions_and_lengths[(3, 2)-causal-float32]",
    ),
    "attention: a softmax without its mean's gradient": Fault(
        "kernels/attention.py", "(load_first(d_row + j, n) - mean)", "load_first(d_row + j, n)",
        "test_attention.py::test_values_and_gradients",
    ),
    "attention: weights that are not divided": Fault(
        "kernels/attention.py", "columns - j) / total", "columns - j)", "test_attention.py::test_values_and_gradients"
    ),
    "recursive: panels of the gates' own places": Fault(
        "kernels/recursive.py", "return gate + (forgets if gate > 0 else 0), panel // own", "return gate, panel // own",
        TREES.format("lstm", 3),
    ),
    "levels: children side by side in one place": Fault(
        "kernels/levels.py", "(slot - first) * H + unit), h_k", "(slot - first) * H * 0 + unit), h_k",
        TREES.format("tanh", 3),
    ),
    "levels: the first node without its parent's gradient": Fault(
        "kernels/levels.py", "from_above = valid if own >= 0 else 0", "from_above = valid if own > 0 else 0",
        TREES.format("tanh", "sum"),
    ),
    "cells: a forget gate that is not a child's": Fault(
        "kernels/cells/tree.py", "store_first(gradients.c + (slot * H + unit), d_c * f_k, valid)",
        "store_first(gradients.c + (slot * H + unit), d_c, valid)", TREES.format("lstm", "sum"),
    ),
    "trees: heights that grow by one": Fault(
        "trees.py", "reach = heights[nodes] + distance", "reach = heights[nodes] + 1",
        "test_trees.py::test_levels_are_heights",
    ),
    "pooling: a mean's gradient that is a sum's": Fault(
        "models/pooling.py", "functional.gather(d / lengths, sequence)", "functional.gather(d, sequence)",
        "test_pooling.py::test_gradients",
    ),
    "models: predictions in the order of the lengths": Fault(
        "models/classifier.py", "found[batch.order] = rows", "found[:] = rows",
        "test_sequence_models.py::test_a_prediction_does_not_depend_on_the_batch",
    ),
    "models: states left in the order of the lengths": Fault(
        "models/encoder.py", "return [batch.put_state(s) for s in d_initial]", "return d_initial",
        "test_encoder.py::test_an_encoder_is_its_layer",
    ),
    "decoding: a search that ends too early": Fault(
        "models/decoding.py", "highest <= self.complete[-1].score", "highest <= self.complete[0].score",
        "test_decoding.py::test_a_narrow_beam_is_a_plain_one",
    ),
    "generator: a bridge without its tanh's slope": Fault(
        "models/generator.py", "(1 - h * h).transpose", "(1 - h).transpose",
        "test_generator.py::test_loss_and_gradients_equal_torchs",
    ),
    "seq2seq: attention that forgets the decoder": Fault(
        "models/seq2seq.py", "return dh + d_both[:, H:], d_memory", "return dh, d_memory",
        "test_seq2seq.py::test_loss_and_gradients_equal_torchs",
    ),
    "plot: one direction of a layer drawn like the other": Fault(
        "plot/unroll.py", "T, way = self.T, -1 if source.direction < 0 else 1", "T, way = self.T, 1",
        "test_plot.py::test_directions_run_against_each_other_and_meet",
    ),
    "functional: a pullback that has no first state": Fault(
        "functional/recurrence.py", ": own_column + P] = initial[0]", ": own_column + P] = 0", TANH
    ),
    "functional: outputs in the order of the steps": Fault(
        "functional/recurrence.py", "picked(own[B : B + N], order", "picked(own[B : B + N], np.arange(N)",
        BACKWARDS,
    ),
    "functional: gradients of another direction": Fault(
        "functional/recurrence.py", "dy.ravel()[column:]", "dy.ravel()",
        "test_sequence.py::test_two_directions_share_a_buffer[dense-tanh-float32]",
    ),
    "sizes: weights that nobody compares": Fault(
        "functional/weights.py", "checks.arrays(Weights._fields, weights, dtype, layer.shapes)", "weights",
        "test_sizes.py::test_sizes_and_ranks[recurrent lstm_all x]",
    ),
    "sizes: rows that nobody compares": Fault(
        "functional/recurrence.py", 'checks.array("x", x, dtype, N, I), None', "x, None",
        "test_sizes.py::test_sizes_and_ranks[recurrent tanh x]",
    ),
    "sizes: gradients that nobody compares": Fault(
        "functional/recurrence.py", "checks.targets(_GRADIENT_NAMES, grads, dtype, layer.shapes)", "pass",
        "test_sizes.py::test_sizes_and_ranks[recurrent gru x]",
    ),
    "sizes: tokens that nobody copies": Fault(
        "functional/rows.py", "np.array(tokens), V, N)", "tokens, V, N)",
        "test_tampering.py::test_tokens_and_targets_may_change_before_the_pullback",
    ),
    "sizes: views that callers hold": Fault(
        "parameters.py", "if view is None or view.shape != self._layout.shapes[name] or", "if view is None or",
        "test_tampering.py::test_views_of_a_callers_are_his_own[reshape_a_view-linear]",
    ),
    "sizes: offsets that may be written": Fault(
        "ragged.py", "return read_only(self._offsets)", "return self._offsets",
        "test_tampering.py::test_what_kernels_follow_is_read_only",
    ),
    "functional: a mean that is a sum": Fault(
        "functional/losses.py", "scale / max(N, 1)", "scale", "test_loss.py::test_linear_values_and_gradients"
    ),
    "torch: states of another direction": Fault(
        "torch/function.py", "[*zip(*map(array, states), strict=True)]", "[*zip(*map(array, states))][::-1]",
        "test_torch_modules.py::test_values_and_gradients[bidirectional-gru-float64]",
    ),
    "torch: cotangents of another direction": Fault(
        "torch/function.py", "[*zip(*d_ends, strict=True)]", "[*zip(*d_ends, strict=True)][::-1]",
        "test_torch_modules.py::test_values_and_gradients[bidirectional-gru-float64]",
    ),
    "torch: padding that is always 0": Fault(
        "torch/packed.py", "[:, None], other) if other else y", "[:, None], 0) if other else y",
        "test_torch_packed.py::test_padding[padding_value-sorted-float64]",
    ),
    "torch: padded rows laid out as another batch": Fault(
        "torch/packed.py", "(np.arange(B), B, (T, B))", "(np.arange(B), B, (T, B))[:2] + ((B, T),)",
        "test_torch_packed.py::test_padding[total_length-sorted-float64]",
    ),
    "parameters: joined ones that are copies": Fault(
        "parameters.py", "part._over(layout, joined._memory[place], (joined, name))", "pass",
        "test_parameters.py::test_one_optimiser_trains_joined_layers",
    ),
    "stack: weights of an earlier buffer": Fault(
        "layers/stack.py", "if self._bound[0] is not views:", "if self._bound[0] is None:",
        "test_parameters.py::test_one_optimiser_trains_joined_layers",
    ),
    "checkpoint: a writer that is taken for dead": Fault(
        "checkpoint.py", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "file.fileno()",
        "test_checkpoint.py::test_what_a_living_process_writes_is_left_alone",
    ),
    "text: a bound on the compressed bytes": Fault(
        "training/text.py", "gzip.GzipFile(fileobj=io.BytesIO(data)), most)",
        "gzip.GzipFile(fileobj=io.BytesIO(data)), 1 << 40)",
        "test_text.py::test_a_gzip_that_expands_is_read_no_further",
    ),
    "batches: the rows of a Packed overlooked": Fault(
        "models/batches.py", "found = values.data if isinstance(values, Packed) else values", "found = values",
        "test_model.py::test_a_batch_that_is_not_finite_is_named",
    ),
    "program: a bar that is there before the first step": Fault(
        "cli/program.py", "initial=share, postfix=text", "postfix=text",
        "test_cli.py::test_a_bar_appears_with_the_first_step_and_leaves_its_time_out",
    ),
    "torch: shapes of weights that are believed": Fault(
        "torch/tensors.py", "or t.shape != shape", "or False",
        "test_torch_misfits.py::test_a_weight_of_another_input_size",
    ),
    "torch: sizes of another type that pass for sizes": Fault(
        "torch/modules.py", "any(type(size) is not int or size < 1 for size in sizes)", "False",
        "test_torch_misfits.py::test_edited_attributes",
    ),
    "torch: switches of another type that pass for switches": Fault(
        "torch/modules.py", "any(type(switch) is not bool for switch in (bias, bidirectional, *switches))", "False",
        "test_torch_misfits.py::test_edited_attributes",
    ),
    "torch: a projection of another cell": Fault(
        "torch/modules.py", 'not 0 <= proj_size < (hidden_size if "proj_size" in kind.own else 1)', "False",
        "test_torch_misfits.py::test_projections_that_torch_does_not_have",
    ),
    "torch: flat weights that are not read": Fault(
        "torch/modules.py", "        module._update_flat_weights()\n        return module._flat_weights",
        "        return [getattr(module, name) for name in names]",
        "test_torch_misfits.py::test_weights_that_are_no_parameters",
    ),
    "torch: oneDNN where weights are too small": Fault(
        "torch/modules.py", "return self._without_onednn(input, hx) if _short(weights, shapes) else None",
        "return None", "test_torch_misfits.py::test_memory_beyond_misfits_is_not_touched",
    ),
    "torch: indices of any length": Fault(
        "torch/modules.py", "order is None or fit((order,), [(B,)], torch.int64)", "True",
        "test_torch_misfits.py::test_indices_of_another_length",
    ),
    "torch: freed storages that are read": Fault(
        "torch/tensors.py", "if (size := tensor.untyped_storage().nbytes()) < needed:", "if (size := 0) < 0:",
        "test_torch_misfits.py::test_storages_that_are_freed_or_cut",
    ),
    "torch: a view beyond the end of its storage": Fault(
        "torch/tensors.py", "tensor.storage_offset() * found.itemsize + found.nbytes >", "found.nbytes >",
        "test_torch_misfits.py::test_inputs_that_are_freed_or_cut",
    ),
    "torch: an input with gaps that ends too early": Fault(
        "torch/tensors.py", "        check_storage(tensor)\n        return tensor.contiguous()",
        "        return tensor.contiguous()", "test_torch_misfits.py::test_inputs_that_are_freed_or_cut",
    ),
    "torch: states that are picked from memory beyond their end": Fault(
        "torch/modules.py", "                check_storage(state)\n", "                pass\n",
        "test_torch_misfits.py::test_inputs_that_are_freed_or_cut",
    ),
    "torch: saved tensors of any shape": Fault(
        "torch/function.py", "if not fit((x, *tensors), shapes, ctx.dtype):", "if False:",
        "test_torch_misfits.py::test_saved_tensors_that_come_back_in_other_shapes",
    ),
    "torch: batch sizes of any rank and dtype": Fault(
        "torch/packed.py", "not fit((sizes,), [(sizes.numel(),)], torch.int64)", "False",
        "test_torch_misfits.py::test_batch_sizes_of_other_dtypes",
    ),
    "torch: lengths of padding that are too small": Fault(
        "torch/packed.py", "total_length < len(steps[0].count)", "False",
        "test_torch_misfits.py::test_lengths_of_padding",
    ),
    "jit: an OpenMP that forgets its number of threads": Fault(
        "kernels/jit.py", "openmp.omp_set_num_threads(before)", "pass",
        "test_torch_living.py::test_torch_after_the_first_kernel_finds_its_own_number_of_threads[1]",
    ),
    "jit: a child that runs on its parent's threads": Fault(
        "kernels/jit.py", "self.forked = self.forked or parallel._is_initialized", "self.forked = False",
        "test_jit.py::test_threads_that_another_package_started",
    ),
    "cache: a stamp of names only": Fault(
        "kernels/cache.py", "source = loader.get_source(name)", 'source = ""',
        "test_cache.py::test_an_edit_below_a_kernel_is_seen",
    ),
    "cache: files that are believed": Fault(
        "kernels/cache.py", "if hashlib.sha256(key + data).digest() != digest:", "if not data:",
        "test_cache.py::test_any_damage_is_found",
    ),
    "cache: files of other signatures": Fault(
        "kernels/cache.py", "_write(path, hashlib.sha256(key + data).digest() + data)",
        "key = b''; _write(path, hashlib.sha256(key + data).digest() + data)",
        "test_cache.py::test_damaged_files_are_compiled_anew[exchanged]",
    ),
    "cache: files that anybody has written": Fault(
        "kernels/cache.py", "if not _trusted(os.fstat(file.fileno())):", "if False:",
        "test_cache.py::test_what_others_can_write_is_refused[a file]",
    ),
    "kinds: ONNX' gates in our own order": Fault(
        "kinds.py", '("i", "o", "f", "g")', '("i", "f", "g", "o")',
        "test_onnx.py::test_nodes[lstm-forward-none-none]",
    ),
    "gradcheck: gates named in another order": Fault(
        "gradcheck/layer.py", "for at, gate in enumerate(gates)}", "for at, gate in enumerate(gates[::-1])}",
        "test_gradcheck.py::test_faults_of_a_layer_are_named",
    ),
    "cache: failures to write that end the call": Fault(
        "kernels/cache.py", "except OSError as error:", "except ZeroDivisionError as error:",
        "test_cache.py::test_a_disk_that_is_full",
    ),
    "cache: functions numbered from the same start": Fault(
        "kernels/cache.py", "itertools.count(int.from_bytes(os.urandom(7), \"little\"))", "itertools.count(1)",
        "test_cache.py::test_processes_number_their_functions_apart",
    ),
}  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    """A copy of the repository, and a function that runs tests in it."""
    for folder in ("fastrnn", "tests", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def run(tests):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{t}" for t in tests)]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return tmp_path, run


def check_fault(fault, copy):
    folder, run = copy
    path = folder / "fastrnn" / fault.file
    source = path.read_text()
    assert source.count(fault.old) == 1, f"{fault.file}: the text to change is there {source.count(fault.old)} times"
    path.write_text(source.replace(fault.old, fault.new))
    result = run([fault.test])
    # 1: tests ran and some failed; below 0: a signal
    assert result.returncode == 1 or result.returncode < 0, result.stdout
    assert "ImportError" not in result.stdout


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_caught(name, copy):
    check_fault(QUICK[name], copy)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_caught(name, copy):
    check_fault(FAULTS[name], copy)


@pytest.mark.exhaustive
def test_without_faults_the_tests_pass(copy):
    _, run = copy
    result = run(sorted({fault.test for fault in (QUICK | FAULTS).values()}))
    assert result.returncode == 0, result.stdout


def test_every_fault_can_be_planted():
    for name, fault in (QUICK | FAULTS).items():
        assert (ROOT / "fastrnn" / fault.file).read_text().count(fault.old) == 1, name
        assert (ROOT / "tests" / fault.test.split("::")[0]).exists(), name


@pytest.mark.parametrize(("index", "message"), [(8, "beyond the end of 32"), (-1, "before the start of 32")])
def test_the_poison_sees_a_stray_write(index, message, poison):
    array = poison.empty(8, np.float32)
    assert np.isnan(array).all()
    array[:] = 0
    poison.check()
    array = poison.empty(8, np.float32)
    ctypes.c_float.from_address(array.ctypes.data + 4 * index).value = 0
    with pytest.raises(AssertionError, match=message):
        poison.check()


def test_the_poison_is_in_the_package(poison):
    float32 = np.dtype("float32")
    first = losses.scratch(5, float32)
    first[:] = 1
    assert np.isnan(losses.scratch(3, float32)).all()
    assert np.isnan(first).all()
    assert np.isnan(losses.empty((2, 3), float32)).all()
    assert np.isnan(losses.np.empty(3)).all()
