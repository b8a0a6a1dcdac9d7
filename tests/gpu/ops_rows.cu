/* Norms and rotary embedding. */
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

/* rstd is given to the backward as fp32: rounded once more than the oracle's. */
constexpr tolerance GRADIENT = {0x1p-8, 0x1p-12};

/* Rows of very different size, and one of zeros. */
ops_value uneven(ops_case &c)
{
    const ops_value normal = c.normal();
    return [normal](int64_t i, int64_t j) {
        return i % 5 == 4 ? 0.0 : normal(i, j) * std::pow(10.0, static_cast<double>(i % 4) * 2 - 3);
    };
}

void rmsnorm(ops_bench *b, int64_t rows, int64_t cols, int64_t pad)
{
    {
        ops_case c(b, label("rmsnorm_fwd", {rows, cols, pad}));
        const ops_tensor x = c.input(rows, cols, pad, 0, KERN_BF16, uneven(c));
        const ops_tensor w = c.input(1, cols, 0, 0, KERN_BF16, c.normal());
        const ops_tensor y = c.output(rows, cols, pad, 0, KERN_BF16, ROUNDED);
        const ops_tensor rstd = c.output(1, rows, 0, 0, KERN_F32, {0x1p-20, 0});
        const auto args = [&](ops_side d) {
            return kern_rmsnorm_fwd_t{x(d), w(d), y(d), rstd(d), 1e-5};
        };
        OPS_RUN(c, rmsnorm_fwd, args);
    }
    for (int flags = 0; flags < 4; flags++) { /* x in a's place; sums that bf16 has exactly */
        const bool in_place = flags % 2, exact = flags / 2;
        ops_case c(b, label("add_rmsnorm_fwd", {rows, cols, pad, flags}));
        const auto terms = [&] {
            const ops_value normal = c.normal();
            return ops_value([normal, exact](int64_t i, int64_t j) {
                const double z = normal(i, j);
                return exact ? std::round(std::fmax(-8.0, std::fmin(8.0, z)) * 8) / 8 : z;
            });
        };
        const ops_tensor u =
            in_place ? c.inout(rows, cols, pad, 0, KERN_BF16, exact ? EXACT : ROUNDED, terms())
                     : c.input(rows, cols, pad, 0, KERN_BF16, terms());
        const ops_tensor v = c.input(rows, cols, pad, 0, KERN_BF16, terms());
        const ops_tensor x =
            in_place ? u : c.output(rows, cols, pad, 0, KERN_BF16, exact ? EXACT : ROUNDED);
        const ops_tensor w = c.input(1, cols, 0, 0, KERN_BF16, c.normal());
        /* the oracle in double does not round the sum, by which the GPU's y is off once more */
        const ops_tensor y =
            c.output(rows, cols, pad, 0, KERN_BF16, exact ? ROUNDED : tolerance{0x1p-7, 0x1p-10});
        const ops_tensor rstd =
            c.output(1, rows, 0, 0, KERN_F32, exact ? tolerance{0x1p-20, 0} : tolerance{0x1p-8, 0});
        const auto args = [&](ops_side d) {
            return kern_add_rmsnorm_fwd_t{u(d), v(d), x(d), w(d), y(d), rstd(d), 1e-5};
        };
        OPS_RUN(c, add_rmsnorm_fwd, args);
    }
    for (int flags = 0; flags < 6; flags++) { /* dw; dres absent, present, the same as dx */
        const int residual = flags / 2;
        ops_case c(b, label("rmsnorm_bwd", {rows, cols, pad, flags}));
        const ops_tensor x = c.input(rows, cols, pad, 0, KERN_BF16, c.normal());
        const ops_tensor dy = c.input(rows, cols, pad, 0, KERN_BF16, c.normal());
        const ops_tensor w = c.input(1, cols, 0, 0, KERN_BF16, c.normal());
        const ops_tensor rstd = c.input(1, rows, 0, 0, KERN_F32, [](int64_t, int64_t j) {
            return 0.5 + 0.01 * static_cast<double>(j);
        });
        const ops_tensor dx = c.inout(rows, cols, pad, 0, KERN_BF16, GRADIENT, c.normal());
        const ops_tensor dres =
            residual == 1 ? c.input(rows, cols, pad, 0, KERN_BF16, c.normal()) : c.none();
        const ops_tensor dw =
            flags % 2 ? c.inout(1, cols, 0, 0, KERN_F32, SUMMED, c.normal()) : c.none();
        const auto args = [&](ops_side d) {
            return kern_rmsnorm_bwd_t{dy(d), x(d), w(d), rstd(d), residual == 2 ? dx(d) : dres(d),
                                      dx(d), dw(d)};
        };
        OPS_RUN(c, rmsnorm_bwd, args);
    }
}

void head_norm(ops_bench *b, int64_t rows, int64_t heads, int32_t dim, int64_t pad)
{
    {
        ops_case c(b, label("head_norm_fwd", {rows, heads, dim, pad}));
        const ops_tensor x = c.input(rows, heads * dim, pad, 0, KERN_BF16, uneven(c));
        const ops_tensor w = c.input(1, dim, 0, 0, KERN_BF16, c.normal());
        const ops_tensor y = c.output(rows, heads * dim, pad, 0, KERN_BF16, ROUNDED);
        const ops_tensor rstd = c.output(rows, heads, pad, 0, KERN_F32, {0x1p-20, 0});
        const auto args = [&](ops_side d) {
            return kern_head_norm_fwd_t{x(d), w(d), y(d), rstd(d), dim, 1e-6};
        };
        OPS_RUN(c, head_norm_fwd, args);
    }
    for (int flags = 0; flags < 4; flags++) { /* dw; dx is dy */
        ops_case c(b, label("head_norm_bwd", {rows, heads, dim, pad, flags}));
        const ops_tensor x = c.input(rows, heads * dim, pad, 0, KERN_BF16, c.normal());
        const ops_tensor dy = c.inout(rows, heads * dim, pad, 0, KERN_BF16, GRADIENT, c.normal());
        const ops_tensor other = c.output(rows, heads * dim, pad, 0, KERN_BF16, GRADIENT);
        const ops_tensor w = c.input(1, dim, 0, 0, KERN_BF16, c.normal());
        const ops_tensor rstd = c.input(rows, heads, pad, 0, KERN_F32, [](int64_t i, int64_t j) {
            return 0.5 + 0.01 * static_cast<double>(i % 50) + 0.1 * static_cast<double>(j);
        });
        const ops_tensor dw =
            flags % 2 ? c.inout(1, dim, 0, 0, KERN_F32, SUMMED, c.normal()) : c.none();
        const auto args = [&](ops_side d) {
            return kern_head_norm_bwd_t{dy(d), x(d), w(d), rstd(d), flags / 2 ? dy(d) : other(d),
                                        dw(d), dim};
        };
        OPS_RUN(c, head_norm_bwd, args);
    }
}

struct rope_shape {
    int64_t rows, extra, pad;
    int32_t q_heads, kv_heads, dim;
};

ops_tensor rotations(ops_case &c, int64_t positions, const rope_shape &s)
{
    return c.input(positions, s.dim, s.pad, 0, KERN_F32, [s](int64_t p, int64_t i) {
        const double angle = static_cast<double>(p) / (1.0 + static_cast<double>(i % (s.dim / 2)));
        return i < s.dim / 2 ? std::cos(angle) : std::sin(angle);
    });
}

void rope(ops_bench *b, const rope_shape &s)
{
    const int64_t cols = (s.q_heads + 2 * s.kv_heads) * int64_t{s.dim}, positions = s.rows + 3;
    const int64_t head_rows = s.rows + s.extra, group = s.q_heads / s.kv_heads;
    const auto position = [&](int64_t, int64_t j) {
        return static_cast<double>(j * 5 % positions);
    };
    /* Only the first `rows` of the head_rows rows of a head belong to the op: one row a head. */
    const auto pieces = [&](ops_case &c, int64_t width, bool result) {
        const int64_t used = s.rows * width, gap = (head_rows - s.rows) * width;
        return result ? c.output(s.kv_heads, used, gap, 0, KERN_BF16, {0x1p-8, 0x1p-14})
                      : c.input(s.kv_heads, used, gap, 0, KERN_BF16, c.normal());
    };
    for (int forward = 0; forward < 2; forward++) {
        ops_case c(b, label(forward ? "rope_fwd" : "rope_bwd",
                            {s.rows, s.extra, s.pad, s.q_heads, s.kv_heads, s.dim}));
        const ops_tensor where = c.input(1, s.rows, 0, 0, KERN_I32, position);
        const ops_tensor table = rotations(c, positions, s);
        const ops_tensor fused =
            forward ? c.input(s.rows, cols, s.pad, 0, KERN_BF16, c.normal())
                    : c.output(s.rows, cols, s.pad, 0, KERN_BF16, {0x1p-8, 0x1p-14});
        const ops_tensor q = pieces(c, group * s.dim, forward), k = pieces(c, s.dim, forward),
                         v = pieces(c, s.dim, forward);
        const auto fwd = [&](ops_side d) {
            return kern_rope_fwd_t{fused(d), where(d),  table(d),  q(d).mem,   k(d).mem,
                                   v(d).mem, head_rows, s.q_heads, s.kv_heads, s.dim};
        };
        const auto bwd = [&](ops_side d) {
            return kern_rope_bwd_t{q(d).mem, k(d).mem, v(d).mem,  head_rows,  where(d),
                                   table(d), fused(d), s.q_heads, s.kv_heads, s.dim};
        };
        if (forward)
            OPS_RUN(c, rope_fwd, fwd);
        else
            OPS_RUN(c, rope_bwd, bwd);
    }
}

void rope_table(ops_bench *b, int64_t positions, int64_t dim, int64_t pad)
{
    ops_case c(b, label("rope_table", {positions, dim, pad}));
    std::vector<double> inv_freq;
    for (int64_t i = 0; i < dim / 2; i++)
        inv_freq.push_back(
            std::pow(500000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
    /* cos of a large angle may be off by what the angle's last bit is worth */
    const ops_tensor table = c.output(positions, dim, pad, 0, KERN_F32, {0x1p-22, 0x1p-24});
    const auto args = [&](ops_side d) {
        return kern_rope_table_t{inv_freq.data(), 1.25, table(d)};
    };
    OPS_RUN(c, rope_table, args);
}

} // namespace

void ops_check_rows(ops_bench *b)
{
    for (const int64_t cols : {2, 7, 64, 130, 1000, 2048, 4096, 8192, 16384, 16392})
        for (const int64_t pad : {0, 3, 64})
            rmsnorm(b, cols > 5000 ? 5 : cols > 1000 ? 20 : 70, cols, pad);
    head_norm(b, 1, 1, 2, 0);
    head_norm(b, 13, 3, 6, 1);
    head_norm(b, 70, 5, 64, 0);
    head_norm(b, 41, 8, 128, 64);
    head_norm(b, 9, 2, 256, 8);
    rope(b, {1, 0, 0, 1, 1, 2});
    rope(b, {5, 3, 2, 4, 2, 6});
    rope(b, {9, 1, 0, 6, 2, 16});
    rope(b, {33, 7, 8, 8, 2, 64});
    rope(b, {70, 2, 64, 32, 8, 128});
    rope_table(b, 1, 2, 0);
    rope_table(b, 5000, 128, 0);
    rope_table(b, 40, 1100, 3);
}
