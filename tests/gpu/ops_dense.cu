/* Elementwise ops, embedding; products: gemm and the loss, which have cuBLASLt's kernels. */
#include "tests/gpu/ops_case.cuh"

#include <cmath>

namespace
{

std::string label(const char *op, std::initializer_list<int64_t> numbers)
{
    std::string text = op;
    for (const int64_t n : numbers)
        text += " " + std::to_string(n);
    return text;
}

/* Zeros of both signs, the largest, the smallest, subnormal, infinite values and NaN, among normal
 * ones. */
ops_value adversarial(ops_case &c)
{
    const ops_value normal = c.normal();
    return [normal](int64_t i, int64_t j) {
        static const double special[] = {0.0,    -0.0,     3.3895e38, -3.3895e38, 1.2e-38, 9e-41,
                                         -9e-41, INFINITY, -INFINITY, NAN,        88.7,    -88.7,
                                         -100.0, 104.0,    1.0,       -1.0};
        const int64_t at = (i * 37 + j * 11) % 48;
        return at < 16 ? special[at] : normal(i, j);
    };
}

struct shape {
    int64_t rows, cols, pad, shift;
};
/* In chunks of 8 and not, with and without gaps between rows. */
const shape SHAPES[] = {{1, 1, 0, 0},    {3, 7, 0, 0},     {5, 64, 3, 0},     {17, 136, 8, 0},
                        {17, 136, 8, 1}, {33, 1000, 0, 0}, {64, 4096, 64, 0}, {300, 257, 7, 3}};

void elementwise(ops_bench *b)
{
    for (const shape &s : SHAPES) {
        {
            ops_case c(b, label("add", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor x = c.input(s.rows, s.cols, s.pad, s.shift, KERN_BF16, adversarial(c));
            const ops_tensor y =
                c.inout(s.rows, s.cols, s.pad, s.shift, KERN_BF16, ROUNDED, adversarial(c));
            const auto args = [&](ops_side d) { return kern_add_t{x(d), y(d), y(d)}; };
            OPS_RUN(c, add, args);
        }
        {
            ops_case c(b, label("bias_add", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor bias = c.input(1, s.cols, 0, s.shift, KERN_BF16, c.normal());
            const ops_tensor y =
                c.inout(s.rows, s.cols, s.pad, s.shift, KERN_BF16, ROUNDED, adversarial(c));
            const auto args = [&](ops_side d) { return kern_bias_add_t{bias(d), y(d)}; };
            OPS_RUN(c, bias_add, args);
        }
        {
            ops_case c(b, label("column_sum", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor x = c.input(s.rows, s.cols, s.pad, s.shift, KERN_BF16, c.normal());
            const ops_tensor sum = c.inout(1, s.cols, 0, s.shift, KERN_F32, SUMMED, c.normal(10));
            const auto args = [&](ops_side d) { return kern_column_sum_t{x(d), sum(d)}; };
            OPS_RUN(c, column_sum, args);
        }
        {
            ops_case c(b, label("swiglu_fwd", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor x =
                c.input(s.rows, 2 * s.cols, s.pad, s.shift, KERN_BF16, c.normal(4));
            const ops_tensor y = c.output(s.rows, s.cols, s.pad, s.shift, KERN_BF16, ROUNDED);
            const auto args = [&](ops_side d) { return kern_swiglu_fwd_t{x(d), y(d)}; };
            OPS_RUN(c, swiglu_fwd, args);
        }
        {
            ops_case c(b, label("swiglu_bwd", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor x =
                c.input(s.rows, 2 * s.cols, s.pad, s.shift, KERN_BF16, c.normal(4));
            const ops_tensor dy = c.input(s.rows, s.cols, s.pad, s.shift, KERN_BF16, c.normal());
            const ops_tensor dx = c.output(s.rows, 2 * s.cols, s.pad, s.shift, KERN_BF16, ROUNDED);
            const auto args = [&](ops_side d) { return kern_swiglu_bwd_t{dy(d), x(d), dx(d)}; };
            OPS_RUN(c, swiglu_bwd, args);
        }
    }
}

void convert(ops_bench *b)
{
    const kern_dtype_t dtypes[] = {KERN_F32, KERN_F64, KERN_BF16};
    for (const shape &s : SHAPES)
        for (const kern_dtype_t from : dtypes)
            for (const kern_dtype_t to : dtypes) {
                ops_case c(b, label("convert", {s.rows, s.cols, s.pad, s.shift, from, to}),
                           oracle::same);
                const ops_tensor x = c.input(s.rows, s.cols, s.pad, s.shift, from, adversarial(c));
                const ops_tensor y = c.output(s.rows, s.cols, s.pad, s.shift, to, EXACT);
                const auto args = [&](ops_side d) { return kern_convert_t{x(d), y(d)}; };
                OPS_RUN(c, convert, args);
            }
}

void embedding(ops_bench *b)
{
    for (const shape &s : SHAPES) {
        const int64_t vocabulary = s.rows / 3 + 2;
        const auto token = [&](int64_t, int64_t j) {
            return static_cast<double>((j * j * 7 + j) % vocabulary);
        };
        {
            ops_case c(b, label("embedding_fwd", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor tokens = c.input(1, s.rows, 0, 0, KERN_I32, token);
            const ops_tensor table =
                c.input(vocabulary, s.cols, s.pad, s.shift, KERN_BF16, c.normal());
            const ops_tensor y = c.output(s.rows, s.cols, s.pad, s.shift, KERN_BF16, EXACT);
            const auto args = [&](ops_side d) {
                return kern_embedding_fwd_t{tokens(d), table(d), y(d)};
            };
            OPS_RUN(c, embedding_fwd, args);
        }
        {
            ops_case c(b, label("embedding_bwd", {s.rows, s.cols, s.pad, s.shift}));
            const ops_tensor tokens = c.input(1, s.rows, 0, 0, KERN_I32, token);
            const ops_tensor dy = c.input(s.rows, s.cols, s.pad, s.shift, KERN_BF16, c.normal());
            const ops_tensor dtable =
                c.inout(vocabulary, s.cols, s.pad, s.shift, KERN_F32, SUMMED, c.normal());
            const auto args = [&](ops_side d) {
                return kern_embedding_bwd_t{tokens(d), dy(d), dtable(d)};
            };
            OPS_RUN(c, embedding_bwd, args);
        }
    }
}

struct gemm_shape {
    int64_t m, n, k, pad;
};

void gemm(ops_bench *b)
{
    const gemm_shape shapes[] = {{1, 1, 1, 0},       {3, 5, 7, 2},      {65, 130, 33, 5},
                                 {13, 17, 129, 3},   {4, 3, 0, 1},      {128, 256, 64, 0},
                                 {77, 264, 136, 64}, {300, 96, 200, 8}, {1, 512, 96, 0}};
    for (const gemm_shape &s : shapes)
        for (int flags = 0; flags < 16; flags++) {
            const bool ta = flags & 1, tb = flags & 2, wide = flags & 8;
            const int accumulate = flags >> 2 & 1;
            ops_case c(b, label("gemm", {s.m, s.n, s.k, s.pad, flags}));
            const ops_tensor x =
                c.input(ta ? s.k : s.m, ta ? s.m : s.k, s.pad, 0, KERN_BF16, c.normal());
            const ops_tensor w =
                c.input(tb ? s.n : s.k, tb ? s.k : s.n, s.pad, 0, KERN_BF16, c.normal());
            /* cuBLASLt rounds a bf16 product before it adds it to C */
            const tolerance twice = {0x1p-8, 0x1p-8};
            const ops_tensor y = c.inout(s.m, s.n, s.pad, 0, wide ? KERN_F32 : KERN_BF16,
                                         wide         ? SUMMED
                                         : accumulate ? twice
                                                      : ROUNDED,
                                         c.normal());
            const auto args = [&](ops_side d) {
                return kern_gemm_t{x(d), w(d), y(d), ta, tb, accumulate};
            };
            OPS_RUN(c, gemm, args);
        }
}

struct loss_shape {
    int64_t rows, supervised, hidden, vocabulary, chunk, pad;
};

/* bf16 logits are off by 2^-9 of themselves: of their greatest, `top`, in a loss, and as a factor
 * in a probability. fp32 logits have no such term; their gradient is rounded to bf16 all the same. */
void loss(ops_bench *b)
{
    const loss_shape shapes[] = {
        {4, 3, 5, 7, 8, 0},      {9, 9, 6, 33, 4, 2},       {21, 13, 17, 50, 5, 1},
        {3, 0, 4, 5, 2, 0},      {40, 33, 64, 1000, 16, 0}, {20, 20, 128, 20000, 8, 8},
        {2, 2, 8, 9001, 2, 0},     /* a thread has several elements that are not whole chunks */
        {3, 3, 16, 240008, 2, 8}}; /* more than shared memory keeps of a row of fp32 */
    for (const loss_shape &s : shapes)
        for (int flags = 0; flags < 8; flags++) {
            const bool wide = flags & 1, want_dx = flags & 2, want_dw = flags & 4;
            ops_case c(b, label("loss_linear_ce", {s.rows, s.supervised, s.hidden, s.vocabulary,
                                                   s.chunk, s.pad, flags}));
            const double top = 6.0;
            const tolerance loss_tol = wide ? SUMMED : tolerance{0x1p-8, 0x1p-8 * top};
            const tolerance grad_tol = wide ? tolerance{0x1p-7, 0x1p-8} : tolerance{0x1p-5, 0x1p-5};
            const auto listed = [&](int64_t, int64_t j) {
                return static_cast<double>(j + (s.rows - s.supervised) * j /
                                                   (s.supervised > 1 ? s.supervised : 1));
            };
            const ops_value normal = c.normal();
            const auto x_value =
                [&](int64_t i, int64_t j) { /* one row is NaN, and switched off */
                                            return s.supervised > 2 &&
                                                           i == static_cast<int64_t>(listed(0, 2))
                                                       ? NAN
                                                       : normal(i, j);
                };
            const ops_tensor x = c.input(s.rows, s.hidden, s.pad, 0, KERN_BF16, x_value);
            const ops_tensor w = c.input(s.vocabulary, s.hidden, s.pad, 0, KERN_BF16,
                                         c.normal(1.5 / std::sqrt(static_cast<double>(s.hidden))));
            const ops_tensor rows = c.input(1, s.supervised, 0, 0, KERN_I32, listed);
            const ops_tensor targets =
                c.input(1, s.supervised, 0, 0, KERN_I32, [&](int64_t, int64_t j) {
                    const int64_t target = j * 131 % s.vocabulary; /* from either end */
                    return static_cast<double>(j % 2 ? s.vocabulary - 1 - target : target);
                });
            const ops_tensor weights =
                c.input(1, s.supervised, 0, 0, KERN_F32, [](int64_t, int64_t j) {
                    return j == 2 ? 0.0 : 0.25 + 0.125 * static_cast<double>(j % 5);
                });
            const ops_tensor losses = c.output(1, s.supervised, 0, 0, KERN_F32, loss_tol);
            const ops_tensor dx =
                want_dx ? c.output(s.rows, s.hidden, s.pad, 0, KERN_BF16, grad_tol) : c.none();
            const ops_tensor dw =
                want_dw ? c.inout(s.vocabulary, s.hidden, s.pad, 0, KERN_F32, grad_tol, c.normal())
                        : c.none();
            /* scratch: a result with any contents */
            const tolerance any = {INFINITY, INFINITY};
            const ops_tensor logits =
                c.inout(s.chunk, s.vocabulary, s.pad, 0, wide ? KERN_F32 : KERN_BF16, any,
                        [](int64_t, int64_t) { return 1.0; });
            const ops_tensor gathered = c.inout(s.chunk, s.hidden, s.pad, 0, KERN_BF16, any,
                                                [](int64_t, int64_t) { return 1.0; });
            const auto args = [&](ops_side d) {
                return kern_loss_linear_ce_t{x(d),      w(d),  rows(d), targets(d), weights(d),
                                             losses(d), dx(d), dw(d),   logits(d),  gathered(d)};
            };
            OPS_RUN(c, loss_linear_ce, args);
        }
}

void loss_sum(ops_bench *b)
{
    for (const int64_t count : {0, 1, 7, 255, 1000, 5000}) {
        ops_case c(b, label("loss_sum", {count}));
        const ops_value normal = c.normal(3);
        const ops_tensor values = c.input(1, count, 0, 1, KERN_F32, [&](int64_t i, int64_t j) {
            return j % 11 == 3 ? NAN : normal(i, j);
        });
        const ops_tensor weights = c.input(1, count, 0, 1, KERN_F32, [](int64_t, int64_t j) {
            return j % 11 == 3 ? 0.0 : 1.0 / (2.0 + static_cast<double>(j % 3));
        });
        const ops_tensor segments = c.input(1, count, 0, 0, KERN_I32, [](int64_t, int64_t j) {
            return static_cast<double>(j / 5 % 6);
        });
        const ops_tensor sums = c.inout(1, 7, 0, 0, KERN_F32, SUMMED, c.normal());
        const auto args = [&](ops_side d) {
            return kern_loss_sum_t{values(d), weights(d), segments(d), sums(d)};
        };
        OPS_RUN(c, loss_sum, args);
    }
}

} // namespace

void ops_check_dense(ops_bench *b)
{
    elementwise(b);
    convert(b);
    embedding(b);
    loss_sum(b);
}

void ops_check_products(ops_bench *b)
{
    gemm(b);
    loss(b);
}
