/* The op interface: argument structs and one function per op, the same for every device.
 *
 * Every op takes a stream and a pointer to its arguments, checks them (kernels/op_check.c: shapes,
 * dtypes, bounds of every operand within its buffer), and gives the work to the implementation of
 * the stream's device (kernels/op_registry.c). A device that lacks an op, or a dtype of it, returns
 * BASE_ERR_UNSUPPORTED and names op, dtype and device; nothing falls back silently. The call
 * returns when the work is queued; what pointers inside the arguments point to (task lists) must
 * stay unchanged until the stream has passed it.
 *
 * Dtypes. CPU: F32 and F64, from one source over real_t, so that a whole model runs in double in
 * tests; BF16 by way of F32 (kernels/cpu/bf16.c): right, with one rounding a result, and slow.
 * CUDA: BF16 storage, F32 accumulation. "real" below is the op's dtype; "acc" is F32 for BF16 and
 * F32, F64 for F64: statistics, LSE, losses and partial sums are acc.
 *
 * Every op has one result, bit for bit, for the same arguments on the same machine: no sum by atomics, no
 * order that depends on time. A row's result depends on that row's operands only, unless the op
 * sums over rows (dW, dw, dtable, column_sum, loss_sum, dA, dB), and then rows are added in
 * ascending order within fixed blocks.
 *
 * Shapes: T rows (tokens) of one stream half, H hidden, F intermediate, V vocabulary, Q query
 * heads, G KV heads, R = Q/G query heads per KV head, D head dim. All matrices are row-major.
 * Outputs must not overlap inputs unless said. */
#ifndef CADRE_KERNELS_OP_H
#define CADRE_KERNELS_OP_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kern_dtype { KERN_F32, KERN_F64, KERN_BF16, KERN_I32, KERN_DTYPE_COUNT } kern_dtype_t;
int64_t kern_dtype_bytes(kern_dtype_t dtype);
const char *kern_dtype_name(kern_dtype_t dtype); /* "fp32" */
kern_dtype_t kern_dtype_acc(kern_dtype_t dtype); /* F32 -> F32, BF16 -> F32, F64 -> F64 */

/* rows x cols, `pitch` elements from row to row (>= cols). A vector is one row. mem.buffer == NULL:
 * absent. */
typedef struct kern_matrix {
    base_mem_t mem;
    int64_t rows, cols, pitch;
    kern_dtype_t dtype;
} kern_mat_t;

kern_mat_t kern_mat(base_mem_t mem, int64_t rows, int64_t cols, int64_t pitch, kern_dtype_t dtype);
kern_mat_t kern_vec(base_mem_t mem, int64_t cols, kern_dtype_t dtype);
int kern_mat_absent(const kern_mat_t *mat);

/* ==== linear algebra ==== */

/* C = op(A) op(B) + (accumulate ? C : 0); op transposes when its flag is set. A linear layer with
 * weight W (N, K): forward y = x W^T (transpose_b), input gradient dx = dy W, weight gradient dW =
 * dy^T x (transpose_a, accumulate). acc inside; one rounding (CUDA, real c and accumulate: the
 * product is rounded before it is added). c is real or acc. */
typedef struct kern_gemm {
    kern_mat_t a, b, c; /* (M,K) or (K,M); (K,N) or (N,K); (M,N) */
    int transpose_a, transpose_b, accumulate;
} kern_gemm_t;

/* Where a device has several algorithms for a product: times them on these operands and keeps the
 * fastest for products of this shape (M and K in steps: kernels/gemm_key.h) on this stream; c's contents
 * are lost. Without it the first that the device's library offers is taken. Before a run, not in
 * it: waits for the device. Devices without a choice do nothing. */
base_status_t kern_gemm_search(base_stream_t *s, const kern_gemm_t *args) BASE_MUST_CHECK;

/* With `on` every product of this stream, also those inside other ops, is searched when its shape is
 * first met, unless it accumulates: that call waits for the device. Off at first. */
base_status_t kern_gemm_search_new(base_stream_t *s, int on) BASE_MUST_CHECK;

/* What searches of this stream have found, so that a later run can begin with it: *bytes of `room`
 * are written to `to` (0: the device has no choice, or nothing was searched). BASE_ERR_ARG when there
 * is too little room; KERN_GEMM_CHOICES_BYTES always do. */
#define KERN_GEMM_CHOICES_BYTES (512 * 1024)
base_status_t kern_gemm_choices_save(base_stream_t *s, void *to, int64_t room,
                                     int64_t *bytes) BASE_MUST_CHECK;
/* *taken: how many shapes; 0 when they are of another kind of device or version of its library. */
base_status_t kern_gemm_choices_load(base_stream_t *s, const void *from, int64_t bytes,
                                     int64_t *taken) BASE_MUST_CHECK;

/* out = a + b elementwise; out may be a or b. */
typedef struct kern_add {
    kern_mat_t a, b, out;
} kern_add_t;

/* out = a in out's dtype, round to nearest even; NaN stays NaN. F32, F64, BF16 in any pair. */
typedef struct kern_convert {
    kern_mat_t a, out;
} kern_convert_t;

/* y[t] += bias for each row t. */
typedef struct kern_bias_add {
    kern_mat_t bias, y; /* (1, N); (T, N), in place */
} kern_bias_add_t;

/* sum += x[0] + x[1] + ..., rows ascending: the gradient of a bias. */
typedef struct kern_column_sum {
    kern_mat_t x;   /* (T, N) */
    kern_mat_t sum; /* acc (1, N), accumulated */
} kern_column_sum_t;

/* ==== token embedding ==== */

/* out[t] = table[tokens[t]]. A token outside [0, V) sticks BASE_ERR_FORMAT to the stream (CPU). */
typedef struct kern_embedding_fwd {
    kern_mat_t tokens, table, out; /* I32 (1, T); (V, H); (T, H) */
} kern_embedding_fwd_t;

/* dtable[tokens[t]] += dout[t], t ascending; dtable is acc (V, H). */
typedef struct kern_embedding_bwd {
    kern_mat_t tokens, dout, dtable;
} kern_embedding_bwd_t;

/* ==== RMSNorm: y = x rstd w, rstd = (mean(x^2) + eps)^-1/2 (Zhang, Sennrich 2019, eq. 4, with eps
 * as in Llama) ==== */

typedef struct kern_rmsnorm_fwd {
    kern_mat_t x, w, y; /* (T, H); (1, H); (T, H) */
    kern_mat_t rstd;    /* acc (1, T), for the backward */
    double eps;
} kern_rmsnorm_fwd_t;

/* A residual and its norm: x = a + b, and rmsnorm_fwd of x as it is stored. The bits are those of add and
 * rmsnorm_fwd one after the other. x may be a or b. */
typedef struct kern_add_rmsnorm_fwd {
    kern_mat_t a, b, x; /* (T, H); x is written */
    kern_mat_t w, y, rstd;
    double eps;
} kern_add_rmsnorm_fwd_t;

/* dx = rstd (w dy - x rstd^2 mean(w dy x)) + (dres present ? dres : 0); dw += sum over rows of dy x
 * rstd. */
typedef struct kern_rmsnorm_bwd {
    kern_mat_t dy, x, w, rstd;
    kern_mat_t dres; /* (T, H) gradient that bypasses the norm (residual), or absent; may be dx */
    kern_mat_t dx;   /* (T, H) */
    kern_mat_t dw;   /* acc (1, H), or absent */
} kern_rmsnorm_bwd_t;

/* The same over each head's D columns with one w for all heads, as Qwen3 does with q and k between
 * projection and rope. x is mostly a column range of a fused projection, so every matrix has its
 * own pitch. A head's bits depend on its own D elements only. */
typedef struct kern_head_norm_fwd {
    kern_mat_t x;    /* (T, heads D) */
    kern_mat_t w;    /* (1, D) */
    kern_mat_t y;    /* (T, heads D); may be x, but the backward needs x as it was */
    kern_mat_t rstd; /* acc (T, heads), for the backward */
    int32_t head_dim;
    double eps;
} kern_head_norm_fwd_t;

/* dx as above, head by head; dw += sum of dy x rstd over rows and within a row over heads, both
 * ascending. */
typedef struct kern_head_norm_bwd {
    kern_mat_t dy, x, w, rstd;
    kern_mat_t dx; /* (T, heads D); may be dy */
    kern_mat_t dw; /* acc (1, D), or absent */
    int32_t head_dim;
} kern_head_norm_bwd_t;

/* ==== rotary embedding and head layout (Su et al. 2021; half-rotation as Hugging Face) ==== */

/* cos_sin[p][i] = scale cos(p inv_freq[i]), cos_sin[p][D/2 + i] = scale sin(...), i < D/2. inv_freq
 * and scale come from the model (plain, llama3, yarn); the angle is computed in double and rounded
 * once. */
typedef struct kern_rope_table {
    const double *inv_freq; /* host, D/2 values; read when the work runs */
    double scale;
    kern_mat_t cos_sin; /* acc (positions, D) */
} kern_rope_table_t;

/* Splits a fused projection row [q heads | k heads | v heads] and rotates q and k by the row's
 * position: for j < D/2
 *   out_j = x_j cos_j - x_{j+D/2} sin_j,   out_{j+D/2} = x_{j+D/2} cos_j + x_j sin_j.
 * Outputs are head-group-major so that a CA-task of any rows and KV heads is one contiguous piece
 * per KV head: q (G, T, R, D), k (G, T, D), v (G, T, D); `head_rows` rows lie between KV heads
 * (>= T). */
typedef struct kern_rope_fwd {
    kern_mat_t qkv;       /* (T, (Q + 2 G) D) */
    kern_mat_t positions; /* I32 (1, T): row of the cos_sin table, from 0 within each document */
    kern_mat_t cos_sin;   /* acc (positions, D) */
    base_mem_t q, k, v;
    int64_t head_rows;
    int32_t num_q_heads, num_kv_heads, head_dim;
} kern_rope_fwd_t;

/* The transpose: dq, dk, dv in the layout above -> dqkv (T, (Q + 2 G) D). */
typedef struct kern_rope_bwd {
    base_mem_t dq, dk, dv;
    int64_t head_rows;
    kern_mat_t positions, cos_sin;
    kern_mat_t dqkv;
    int32_t num_q_heads, num_kv_heads, head_dim;
} kern_rope_bwd_t;

/* ==== SwiGLU (Shazeer 2020): act = silu(gate) up, rows [gate | up] ==== */

typedef struct kern_swiglu_fwd {
    kern_mat_t gate_up, act; /* (T, 2 F); (T, F) */
} kern_swiglu_fwd_t;

typedef struct kern_swiglu_bwd {
    kern_mat_t dact, gate_up;
    kern_mat_t dgate_up; /* (T, 2 F) */
} kern_swiglu_bwd_t;

/* ==== core attention over a batch of CA-tasks ==== */

/* One task: q rows [q_row0, q_row0 + q_rows) and keys [kv_row0, q_row0 + q_rows) of one document,
 * for `kv_heads` consecutive KV heads and their R query heads each. Row numbers are positions in
 * the document: causal, row i sees keys max(kv_row0, i - W + 1, 0) ... i with window W (W = 0:
 * none). kv_row0 is 0, or with a window the multiple of KERN_ATTENTION_TILE at or below max(0,
 * q_row0 - W + 1) (a lower multiple is taken as well: more keys than are seen).
 *
 * All offsets and strides are elements from the bases in the argument struct, so that the same
 * tasks serve every layer; tasks of one call may lie anywhere within the bases' buffers:
 *   q, dq        base + q + h q_head + (row - q_row0) R D        R D contiguous elements
 *   k, v         base + kv + h kv_head + (row - kv_row0) D       dk, dv: dkv, dkv_head
 *   o, d_o       base + o + (row - q_row0) o_row + h o_head      R D contiguous elements
 *   lse, delta   base + lse + h lse_head + (row - q_row0) R      R contiguous acc elements
 * where h counts the task's KV heads from 0.
 *
 * q, k, v, lse, d_o, delta of different tasks may overlap. o and lse (forward), dq, dk, dv of
 * different tasks are disjoint and overlap no input. q_row0 + q_rows < 2^31 and q_rows R < 2^31.
 * CUDA: BF16, head dims that are multiples of 8 (64 and 128 fast), any R; addresses of q, k, v, o, d_o, dq, dk, dv and all strides
 * given for them are multiples of 16 bytes, lse and delta of 4 (else BASE_ERR_ARG names task and
 * operand). */
typedef struct kern_attention_task {
    int64_t q_row0, q_rows, kv_row0;
    int32_t kv_heads;
    int32_t real; /* backward, 1: dk, dv in dk_real, dv_real */
    int64_t q, q_head;
    int64_t kv, kv_head;
    int64_t o, o_row, o_head;
    int64_t lse, lse_head;
    /* backward */
    int64_t d_o, d_o_row, d_o_head;
    int64_t delta, delta_head;
    int64_t dq, dq_head;
    int64_t dkv, dkv_head;
} kern_attention_task_t;

/* Cuts of documents are multiples of this. Key tiles begin at multiples of a divisor of it from the
 * document's first row, whatever keys a task holds, and rows outside the task count as zero on
 * chip; so the bits of a row's o, lse and dq depend on its own q and on the keys it sees only,
 * however the document was cut and batched. How query rows are tiled is the implementation's choice
 * and must not show in o, lse or dq. */
#define KERN_ATTENTION_TILE         128
#define KERN_ATTENTION_MAX_HEAD_DIM 256 /* larger: BASE_ERR_UNSUPPORTED */

/* o = softmax(scale q k^T) v; lse = natural log of the sum of exponentials of the scaled scores;
 * every row sees at least itself. Memory outside the tasks' rows is not written; a GPU may read up
 * to 127 rows past the end of a piece of the same buffer, but nothing found there reaches a result,
 * also if it is NaN. A task without rows (or heads) is legal and writes nothing. scale is finite
 * and > 0. q, k, v are finite: a NaN or infinity at one key may reach every row of the same
 * document in its tile, also rows before it; never another document. */
typedef struct kern_attention_fwd {
    kern_dtype_t dtype;
    int32_t group, head_dim; /* R, D */
    int64_t window;          /* W, 0: none */
    double scale;            /* usually D^-1/2 */
    int64_t num_tasks;
    const kern_attention_task_t *tasks;
    base_mem_t q, k, v;
    base_mem_t o, lse;
} kern_attention_fwd_t;

/* dq is written; all rows [kv_row0, q_row0 + q_rows) of dk, dv are written with this task's sums over its q rows and
 * its R heads (0 for a key that no row sees): each task has its own dkv range, nothing is added across tasks. The sums
 * are acc, or with the task's `real` rounded once, in dk_real, dv_real: the bits of a partial_sum of them alone. The
 * order of a sum depends on the task's rows, R, D and W only: not on other tasks, on the number of processors or on
 * time. delta = rowsum(d_o o). */
typedef struct kern_attention_bwd {
    kern_dtype_t dtype;
    int32_t group, head_dim;
    int64_t window;
    double scale;
    int64_t num_tasks;
    const kern_attention_task_t *tasks;
    base_mem_t q, k, v, lse;
    base_mem_t d_o, delta;
    base_mem_t dq;               /* real */
    base_mem_t dk, dv;           /* acc: only with tasks that are not real */
    base_mem_t dk_real, dv_real; /* real: only with tasks that are */
    base_mem_t workspace;        /* or absent: buffer NULL */
} kern_attention_bwd_t;

/* Bytes of a workspace with which an attention_bwd of these tasks is faster (dtype, group, head_dim, window and tasks
 * are looked at); 0: none helps, and one that is given is not used. With one, which has at least as many bytes at a
 * multiple of 16, dq is summed there in fp32, in a fixed order. Its contents do not matter and are lost; calls on one
 * stream may share it. dq has other bits with than without one (both within rounding): rows that are to be compared
 * bit for bit take the same choice everywhere. */
#define KERN_ATTENTION_NARROW_WINDOW 2048 /* up to here none helps */
int64_t kern_attention_bwd_workspace(const kern_attention_bwd_t *args);

/* delta (G, head_rows, R) = rowsum over D of d_o o, both (T, Q D) with their pitches. */
typedef struct kern_attention_delta {
    kern_mat_t d_o, o;
    base_mem_t delta; /* acc */
    int64_t head_rows;
    int32_t num_q_heads, num_kv_heads, head_dim;
} kern_attention_delta_t;

/* Sums of partial dk or dv in a fixed order. For each sum s, each h < s.heads and each i < s.count:
 *   dst[s.dst + h s.dst_head + i] = src[p0 + h p0_head + i] + src[p1 + ...] + ...
 * over its parts in the order listed, starting from the first; 0 without parts. A part lies in src
 * (acc) or, when it is `real`, in src_real; the sum is acc and rounded once, into dst. Sums have
 * disjoint destinations, which overlap no part. */
typedef struct kern_sum_part {
    int64_t src, src_head; /* elements */
    int32_t real;          /* 1: in src_real */
    int32_t reserved;      /* 0 */
} kern_sum_part_t;
typedef struct kern_sum {
    int64_t dst, dst_head; /* real elements */
    int64_t count;
    int32_t heads;
    int32_t num_parts;
    int64_t first_part;
} kern_sum_t;
typedef struct kern_partial_sum {
    kern_dtype_t dtype; /* of dst */
    int64_t num_sums, num_parts;
    const kern_sum_t *sums;
    const kern_sum_part_t *parts;
    base_mem_t dst, src;
    base_mem_t src_real; /* only with parts that are real */
} kern_partial_sum_t;

/* dst = parts[0] + parts[1] + ..., elementwise, in the order listed, each sum rounded to the dtype:
 * what is left of an all-reduce when all contributions are here. N elements each; dst is the same
 * place as one of the parts, or overlaps none. */
#define KERN_VECTOR_SUM_MAX_PARTS 64
typedef struct kern_vector_sum {
    kern_mat_t dst;    /* acc (1, N) */
    int64_t num_parts; /* 1 to KERN_VECTOR_SUM_MAX_PARTS */
    base_mem_t parts[KERN_VECTOR_SUM_MAX_PARTS];
} kern_vector_sum_t;

/* ==== loss: linear cross-entropy over the supervised rows, never all logits ==== */

/* For each listed row i: z = W x[rows[i]], loss[i] = logsumexp(z) - z[targets[i]] (unweighted), and
 * with p = softmax(z): dx[rows[i]] = weights[i] (p - onehot) W; dW += weights[i] (p - onehot)^T x.
 * Rows of dx that are not listed become zero. Rows are worked in chunks of logits.rows. A weight of
 * 0 gives loss but no gradient, also where x is not finite. */
typedef struct kern_loss_linear_ce {
    kern_mat_t x;             /* (T, H) */
    kern_mat_t w;             /* (V, H) */
    kern_mat_t rows, targets; /* I32 (1, N); rows are ascending rows of x */
    kern_mat_t weights, loss; /* acc (1, N) */
    kern_mat_t dx;            /* (T, H), or absent: no gradient */
    kern_mat_t dw;            /* acc (V, H), accumulated, or absent */
    kern_mat_t logits;        /* scratch (chunk, V), real or acc: what logits are rounded to */
    kern_mat_t gathered;      /* scratch (chunk, H) */
} kern_loss_linear_ce_t;

/* sums[segments[i]] += weights[i] values[i], i ascending. A weight of 0 adds nothing, whatever the
 * value. */
typedef struct kern_loss_sum {
    kern_mat_t values, weights; /* acc (1, N) */
    kern_mat_t segments;        /* I32 (1, N) */
    kern_mat_t sums;            /* acc (1, S) */
} kern_loss_sum_t;

/* ==== LoRA (Hu et al. 2021): y = x W^T + scale dropout(x) A^T B^T ==== */

/* LoRA rides in the gemm of the frozen weight. Activations have pitch >= K + C, gradients >= N + C,
 * and weights are one buffer [W B; A 0] of (N + C, K + C): W (N, K); an adapter's A are r rows
 * below W, its B r columns beside it; the corner is not used. C extra columns are shared out among
 * the adapters of a microbatch and, for projections that share an input (q|k|v, gate|up), their
 * modules: one *block* each.
 *
 *   forward   lora_s writes s = scale dropout(x) A^T into the extra columns of x, then
 *             gemm [x s] [W B]^T = x W^T + s B^T
 *   backward  lora_ds writes ds = scale dy B into the extra columns of dy, then
 *             gemm [dy ds] [W; A] = dy W + ds A     (no dropout)
 *             or gemm dy W, then lora_dx_dropout    (with dropout)
 *             lora_da: dA += ds^T dropout(x);  lora_db: dB += dy^T s (lora_dy: ds and dB in one)
 *
 * B is 0 outside its module's rows of W, and A, B of unused columns are 0: the caller's business.
 * Here products never mix rows of two adapters, so a NaN of one stays with it; but the gemm
 * multiplies the zeros in s and ds by the A and B of all adapters, and 0 NaN is NaN: A and B must
 * be finite before they are written there (finite_check, adamw's `skip`).
 *
 * Dropout. An element of x is dropped with probability p (to within 2^-17: threshold / 2^16; at most 255 / 256), else
 * divided by 1 - p; 1 / (1 - p) is applied once, to the sum (s: scale / (1 - p)). Dropped elements are left out, not
 * multiplied by 0. Masks are never stored: they are pure functions of what is learned from, with the same bits on
 * every device, whatever the packing, placement and number of trainers.
 *   key(adapter, step, layer, module) = words 0, 1 of Philox 4x32-10 with
 *             key {low, high 32 bits of the adapter's seed}, counter {step, layer, module, 0x44}
 *   column j of row (document, position) is dropped when byte 8 (j mod 64 div 32) + j mod 8 (lower
 *             ones of a word first) of Philox 4x32-7 with that key, counter {low, high 32 bits of
 *             document, position, 4 (j div 64) + j mod 32 div 8} is below the block's limit
 *   limit     = threshold div 2^8, and one more where the upper byte of the exclusive or of the
 *             block's words is below threshold mod 2^8
 *   threshold = min(floor(p 2^16 + 1/2), 2^16 - 2^8)
 * document: its index in the adapter's dataset; position: the row's number in the document; step:
 * optimizer steps that the adapter has done. kernels/dropout.h has it for C and CUDA. */

/* Rows [row0, row1) of one adapter; may be empty. */
typedef struct kern_lora_segment {
    int64_t row0, row1;
    int32_t adapter;  /* index in `adapters` */
    int32_t reserved; /* 0 */
} kern_lora_segment_t;

typedef struct kern_lora_adapter {
    double scale;   /* alpha / r, or alpha / sqrt(r); finite */
    double dropout; /* p, 0 <= p < 1 */
    uint64_t seed;
    uint32_t step;
    uint32_t reserved; /* 0 */
} kern_lora_adapter_t;

/* What one adapter adds to one module of a linear layer. An op uses the matrices that it names; the
 * others may be absent. r = cols of the block in s and ds. */
typedef struct kern_lora_block {
    int32_t adapter, module; /* index in `adapters`; module's number (>= 0) for dropout */
    int64_t column;          /* its columns of s and ds are [column, column + rank) */
    int64_t rank;            /* r >= 1 */
    int64_t out_column;      /* its module's outputs are columns [out_column, + b.rows) of dy */
    kern_mat_t a;            /* (r, K): lora_s, lora_dx_dropout */
    kern_mat_t b;            /* (outputs of the module, r): lora_ds */
    kern_mat_t da;           /* acc (r, K), accumulated: lora_da */
    kern_mat_t db;           /* acc (outputs of the module, r), accumulated: lora_db */
} kern_lora_block_t;

/* Segments ascend and do not overlap; rows of no segment are pad rows. Blocks ascend by column and
 * do not overlap. Lists are host memory. documents and positions are read where an adapter of a
 * block has dropout, else they may be absent. */
typedef struct kern_lora_route {
    int64_t num_segments, num_adapters, num_blocks;
    const kern_lora_segment_t *segments;
    const kern_lora_adapter_t *adapters;
    const kern_lora_block_t *blocks;
    kern_mat_t documents; /* I32 (T, 2): low and high word, an int64_t of a little-endian host */
    kern_mat_t positions; /* I32 (1, T) */
    int32_t layer;        /* its number (>= 0), for dropout */
} kern_lora_route_t;

/* s is written wholly: scale dropout(x) A^T where a row meets a block of its adapter, else 0, also
 * in pad rows. Usually s lies in x's buffer: same pitch, K elements on. */
typedef struct kern_lora_s {
    kern_lora_route_t route;
    kern_mat_t x, s; /* (T, K); (T, used extra columns) */
} kern_lora_s_t;

/* ds is written wholly: scale dy B of the module's columns of dy where a row meets a block of its
 * adapter, else 0. */
typedef struct kern_lora_ds {
    kern_lora_route_t route;
    kern_mat_t dy, ds; /* (T, N); (T, used extra columns) */
} kern_lora_ds_t;

/* dA += ds^T dropout(x) of every block, over the rows of its adapter's segments in their order. A
 * row whose ds is 0 adds 0 (x finite). */
typedef struct kern_lora_da {
    kern_lora_route_t route;
    kern_mat_t x, ds; /* (T, K); (T, used extra columns), of lora_ds or lora_dy */
} kern_lora_da_t;

/* dB += dy^T s of every block, like lora_da. A row whose dy is 0 adds 0 (s finite). */
typedef struct kern_lora_db {
    kern_lora_route_t route;
    kern_mat_t dy, s; /* (T, N); (T, used extra columns), of lora_s */
} kern_lora_db_t;

/* lora_ds and lora_db in one op: dy need be read from memory once. */
typedef struct kern_lora_dy {
    kern_lora_route_t route;
    kern_mat_t dy, s, ds; /* (T, N); (T, used extra columns), s of lora_s */
} kern_lora_dy_t;

/* dx += mask o (ds A) / (1 - p) of every block of the route, in the rows of its adapter; with p = 0
 * plainly ds A. Blocks whose columns the gemm has already taken are left out of the list. */
typedef struct kern_lora_dx_dropout {
    kern_lora_route_t route;
    kern_mat_t ds, dx; /* (T, used extra columns); (T, K), accumulated */
} kern_lora_dx_dropout_t;

/* ==== the step of an adapter: norm, clipping, AdamW. Nothing comes back to the host in between:
 * each reads what the one before left in device memory. Lists are host memory ==== */

/* sum = sum of squares of all elements, in a fixed order: tensors as listed, rows ascending. */
typedef struct kern_grad_norm {
    int64_t num_gradients;
    const kern_mat_t *gradients; /* acc */
    kern_mat_t sum;              /* acc (1, 1), written */
} kern_grad_norm_t;

/* norm = sqrt(sum), factor = min(1, clip / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_. NaN
 * stays NaN. */
typedef struct kern_clip_factor {
    kern_mat_t sum;    /* acc (1, 1) */
    kern_mat_t norm;   /* acc (1, 1), or absent */
    kern_mat_t factor; /* acc (1, 1) */
    double clip;       /* > 0; INFINITY: the factor is 1, whatever the norm */
} kern_clip_factor_t;

/* count = number of elements that are NaN or infinite, at most INT32_MAX. With `keep` they are added to
 * what count holds (>= 0), which then says whether anything was ever found. */
typedef struct kern_finite_check {
    kern_dtype_t dtype; /* of the tensors */
    int64_t num_tensors;
    const kern_mat_t *tensors;
    kern_mat_t count; /* I32 (1, 1), written */
    int32_t keep;
} kern_finite_check_t;

/* AdamW (Loshchilov, Hutter 2019, algorithm 2; the order of operations of torch.optim.AdamW): with
 * g = clip gradient and t = step,
 *   w -= learning_rate weight_decay w;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
 *   w -= learning_rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 * for each tensor of the list, all acc; `copy` becomes w in `dtype`. Coefficients are computed in
 * double (kernels/adamw_terms.h) and rounded once. */
typedef struct kern_adamw_tensor {
    kern_mat_t w, m, v;  /* acc (rows, cols); m and v begin as 0 */
    kern_mat_t gradient; /* acc (rows, cols) */
    kern_mat_t copy;     /* `dtype` (rows, cols), such as A or B in [W B; A 0]; or absent */
} kern_adamw_tensor_t;
typedef struct kern_adamw {
    kern_dtype_t dtype; /* real: of the copies */
    int64_t num_tensors;
    const kern_adamw_tensor_t *tensors;
    double learning_rate, beta1, beta2, eps, weight_decay;
    int64_t step;    /* t >= 1: of the step that is made */
    kern_mat_t clip; /* acc (1, 1), factor of the gradients (clip_factor); absent: 1 */
    kern_mat_t skip; /* I32 (1, 1), or absent: not 0 (finite_check): nothing is written */
} kern_adamw_t;

/* ==== the table ==== */

/* Ops with one dtype; `convert` has two. */
#define KERN_REAL_OP_MAP(X)                                                                        \
    X(gemm)                                                                                        \
    X(add)                                                                                         \
    X(bias_add)                                                                                    \
    X(column_sum)                                                                                  \
    X(embedding_fwd)                                                                               \
    X(embedding_bwd)                                                                               \
    X(rmsnorm_fwd)                                                                                 \
    X(rmsnorm_bwd)                                                                                 \
    X(head_norm_fwd)                                                                               \
    X(head_norm_bwd)                                                                               \
    X(rope_table)                                                                                  \
    X(rope_fwd)                                                                                    \
    X(rope_bwd)                                                                                    \
    X(swiglu_fwd)                                                                                  \
    X(swiglu_bwd)                                                                                  \
    X(attention_fwd)                                                                               \
    X(attention_bwd)                                                                               \
    X(attention_delta)                                                                             \
    X(partial_sum)                                                                                 \
    X(vector_sum)                                                                                  \
    X(loss_linear_ce)                                                                              \
    X(loss_sum)                                                                                    \
    X(lora_s)                                                                                      \
    X(lora_ds)                                                                                     \
    X(lora_da)                                                                                     \
    X(lora_db)                                                                                     \
    X(lora_dy)                                                                                     \
    X(lora_dx_dropout)                                                                             \
    X(grad_norm)                                                                                   \
    X(clip_factor)                                                                                 \
    X(finite_check)                                                                                \
    X(adamw)

#define KERN_OP_MAP(X)                                                                             \
    KERN_REAL_OP_MAP(X)                                                                            \
    X(convert)                                                                                     \
    X(add_rmsnorm_fwd)

/* base_status_t kern_gemm_run(base_stream_t *s, const kern_gemm_t *args), and so on for every op of
 * the map. */
#define X(op)                                                                                      \
    base_status_t kern_##op##_run(base_stream_t *s, const kern_##op##_t *args) BASE_MUST_CHECK;
KERN_OP_MAP(X)
#undef X

/* One device's implementations; NULL: not there. */
typedef struct kern_ops {
    const char *device;
#define X(op) base_status_t (*op)(base_stream_t * s, const kern_##op##_t *args);
    KERN_OP_MAP(X)
#undef X
    int (*attention_has_head_dim)(int64_t head_dim); /* NULL: up to KERN_ATTENTION_MAX_HEAD_DIM */
    base_status_t (*gemm_search)(base_stream_t *s, const kern_gemm_t *args);
    base_status_t (*gemm_search_new)(base_stream_t *s, int on);
    base_status_t (*gemm_choices_save)(base_stream_t *s, void *to, int64_t room, int64_t *bytes);
    base_status_t (*gemm_choices_load)(base_stream_t *s, const void *from, int64_t bytes,
                                       int64_t *taken);
} kern_ops_t;

const kern_ops_t *kern_ops_of(base_device_kind_t kind); /* NULL: none in this build */
/* Whether attention takes heads of that many lanes there; where not, it is BASE_ERR_UNSUPPORTED. */
int kern_attention_has_head_dim(base_device_kind_t kind, int64_t head_dim);

#ifdef __cplusplus
}
#endif
#endif
