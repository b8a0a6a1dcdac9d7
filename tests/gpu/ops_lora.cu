/* The LoRA ops: the cases of kernels/cases and larger ones, pad rows NaN, one adapter's rows NaN;
 * and the masks alone, bit for bit. */
#include "tests/gpu/ops_case.cuh"

#include "kernels/cases/op_cases.h"
#include "kernels/dropout.h"

#include <cmath>

namespace
{

/* Where rows and blocks of a case lie. One block for each (module, adapter), one free column after
 * each. */
struct rig {
    kern_case_lora_t c;
    int64_t T = 0, N = 0, C = 0;
    std::vector<kern_lora_segment_t> segments;
    std::vector<kern_lora_adapter_t> adapters;
    std::vector<int32_t> owner; /* of a row; -1: pad */
    ops_tensor documents, positions;
    std::vector<kern_lora_block_t> blocks[2];

    explicit rig(const kern_case_lora_t &shape) : c(shape)
    {
        for (int32_t i = 0; i < c.num_runs; i++) {
            if (c.run_adapter[i] >= 0)
                segments.push_back({T, T + c.run_rows[i], c.run_adapter[i], 0});
            owner.insert(owner.end(), static_cast<size_t>(c.run_rows[i]), c.run_adapter[i]);
            T += c.run_rows[i];
        }
        for (int32_t i = 0; i < c.num_adapters; i++)
            adapters.push_back({0.5 + i, c.dropout[i], 0x123456789abcull + static_cast<uint64_t>(i),
                                static_cast<uint32_t>(3 + i), 0});
        for (int32_t m = 0; m < c.num_modules; m++)
            N += c.out[m];
        for (int32_t m = 0; m < c.num_modules; m++)
            for (int32_t i = 0; i < c.num_adapters; i++)
                C += c.rank[i] + (c.pad % 8 != 0);
    }

    /* Blocks without matrices, and the rows' names. */
    void make(ops_case &k)
    {
        documents = k.input(T, 2, c.pad % 3, 0, KERN_I32, [](int64_t t, int64_t j) {
            return static_cast<double>(j ? t % 2 : t / 7 + 5);
        });
        positions = k.input(1, T, 0, 0, KERN_I32,
                            [](int64_t, int64_t t) { return static_cast<double>(t % 7); });
        int64_t column = 0, out = 0;
        for (int32_t m = 0; m < c.num_modules; m++) {
            for (int32_t i = 0; i < c.num_adapters; i++) {
                kern_lora_block_t block = {};
                block.adapter = i;
                block.module = m;
                block.column = column;
                block.rank = c.rank[i];
                block.out_column = out;
                blocks[GPU].push_back(block);
                blocks[CPU].push_back(block);
                column += c.rank[i] + (c.pad % 8 != 0);
            }
            out += c.out[m];
        }
    }

    kern_lora_route_t route(ops_side d) const
    {
        kern_lora_route_t r = {};
        r.num_segments = static_cast<int64_t>(segments.size());
        r.num_adapters = c.num_adapters;
        r.num_blocks = static_cast<int64_t>(blocks[d].size());
        r.segments = segments.data();
        r.adapters = adapters.data();
        r.blocks = blocks[d].data();
        r.documents = documents(d);
        r.positions = positions(d);
        r.layer = 4;
        return r;
    }

    template <class Make> void each(kern_mat_t kern_lora_block_t::*matrix, Make make_one)
    {
        for (size_t i = 0; i < blocks[GPU].size(); i++) {
            const ops_tensor t = make_one(blocks[GPU][i]);
            blocks[GPU][i].*matrix = t(GPU);
            blocks[CPU][i].*matrix = t(CPU);
        }
    }

    /* Pad rows are NaN, and so are rows of adapter `nan` (-1: of none). */
    ops_value rows(ops_case &k, int32_t nan, double deviation = 1.0) const
    {
        const ops_value normal = k.normal(deviation);
        return [this, normal, nan](int64_t t, int64_t j) {
            const int32_t who = owner[static_cast<size_t>(t)];
            return who < 0 || who == nan ? NAN : normal(t, j);
        };
    }

    int64_t outputs(const kern_lora_block_t &block) const
    {
        return c.out[block.module];
    }
};

std::string label(const char *op, const rig &r, int32_t nan)
{
    return std::string(op) + " case " + std::to_string(r.c.seed) + " T " + std::to_string(r.T) +
           " K " + std::to_string(r.c.in) + " nan " + std::to_string(nan);
}

void products(ops_bench *b, const kern_case_lora_t &shape, int32_t nan)
{
    const int64_t pad = shape.pad, K = shape.in;
    {
        rig g(shape);
        ops_case c(b, label("lora_s", g, nan));
        g.make(c);
        const ops_tensor x = c.input(g.T, K, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor s = c.output(g.T, g.C, pad, 0, KERN_BF16, ROUNDED);
        g.each(&kern_lora_block_t::a, [&](const kern_lora_block_t &k) {
            return c.input(k.rank, K, pad, 0, KERN_BF16, c.normal());
        });
        const auto args = [&](ops_side d) { return kern_lora_s_t{g.route(d), x(d), s(d)}; };
        OPS_RUN(c, lora_s, args);
    }
    {
        rig g(shape);
        ops_case c(b, label("lora_ds", g, nan));
        g.make(c);
        const ops_tensor dy = c.input(g.T, g.N, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor ds = c.output(g.T, g.C, pad, 0, KERN_BF16, ROUNDED);
        g.each(&kern_lora_block_t::b, [&](const kern_lora_block_t &k) {
            return c.input(g.outputs(k), k.rank, pad, 0, KERN_BF16, c.normal());
        });
        const auto args = [&](ops_side d) { return kern_lora_ds_t{g.route(d), dy(d), ds(d)}; };
        OPS_RUN(c, lora_ds, args);
    }
    {
        rig g(shape);
        ops_case c(b, label("lora_da", g, nan));
        g.make(c);
        const ops_tensor x = c.input(g.T, K, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor ds = c.input(g.T, g.C, pad, 0, KERN_BF16, g.rows(c, nan));
        g.each(&kern_lora_block_t::da, [&](const kern_lora_block_t &k) {
            return c.inout(k.rank, K, pad, 0, KERN_F32, SUMMED, c.normal());
        });
        const auto args = [&](ops_side d) { return kern_lora_da_t{g.route(d), x(d), ds(d)}; };
        OPS_RUN(c, lora_da, args);
    }
    {
        rig g(shape);
        ops_case c(b, label("lora_db", g, nan));
        g.make(c);
        const ops_tensor dy = c.input(g.T, g.N, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor s = c.input(g.T, g.C, pad, 0, KERN_BF16, g.rows(c, nan));
        g.each(&kern_lora_block_t::db, [&](const kern_lora_block_t &k) {
            return c.inout(g.outputs(k), k.rank, pad, 0, KERN_F32, SUMMED, c.normal());
        });
        const auto args = [&](ops_side d) { return kern_lora_db_t{g.route(d), dy(d), s(d)}; };
        OPS_RUN(c, lora_db, args);
    }
    {
        rig g(shape);
        ops_case c(b, label("lora_dy", g, nan));
        g.make(c);
        const ops_tensor dy = c.input(g.T, g.N, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor s = c.input(g.T, g.C, pad, 0, KERN_BF16, g.rows(c, nan));
        const ops_tensor ds = c.output(g.T, g.C, pad, 0, KERN_BF16, ROUNDED);
        g.each(&kern_lora_block_t::b, [&](const kern_lora_block_t &k) {
            return c.input(g.outputs(k), k.rank, pad, 0, KERN_BF16, c.normal());
        });
        g.each(&kern_lora_block_t::db, [&](const kern_lora_block_t &k) {
            return c.inout(g.outputs(k), k.rank, pad, 0, KERN_F32, SUMMED, c.normal());
        });
        const auto args = [&](ops_side d) {
            return kern_lora_dy_t{g.route(d), dy(d), s(d), ds(d)};
        };
        OPS_RUN(c, lora_dy, args);
    }
    {
        rig g(shape);
        ops_case c(b, label("lora_dx_dropout", g, nan));
        g.make(c);
        const ops_tensor ds = c.input(g.T, g.C, pad, 0, KERN_BF16, g.rows(c, nan));
        /* more than 96 ranks of an adapter: dx is rounded in between */
        int64_t ranks = 0;
        for (int32_t i = 0; i < shape.num_adapters; i++)
            ranks = std::max(ranks, int64_t{shape.rank[i]} * shape.num_modules);
        const ops_tensor dx = c.inout(g.T, K, pad, 0, KERN_BF16,
                                      ranks > 80 ? tolerance{0x1p-8, 0x1p-8} : ROUNDED, c.normal());
        g.each(&kern_lora_block_t::a, [&](const kern_lora_block_t &k) {
            return c.input(k.rank, K, pad, 0, KERN_BF16, c.normal());
        });
        const auto args = [&](ops_side d) {
            return kern_lora_dx_dropout_t{g.route(d), ds(d), dx(d)};
        };
        OPS_RUN(c, lora_dx_dropout, args);
    }
}

/* The masks alone. dA of one row with ds = 1 is the mask, and dx of ds = A = 1; s of an A with one
 * 1 in each rank is it at those columns. With p = 0.5 1 / (1 - p) is exact; with another p limits
 * differ from block to block, and results are 1 / (1 - p) to rounding where they are not 0. */
void masks(ops_bench *b, int64_t K, int64_t pad, double p)
{
    const auto one = [](int64_t, int64_t) { return 1.0; };
    kern_case_lora_t shape = {};
    shape.num_runs = 2;
    shape.run_rows[0] = 16;
    shape.run_rows[1] = 21;
    shape.run_adapter[1] = 1;
    shape.in = K;
    shape.num_modules = 2;
    shape.num_adapters = 2;
    shape.out[0] = shape.out[1] = 8;
    shape.rank[0] = 16;
    shape.rank[1] = 24;
    shape.dropout[0] = shape.dropout[1] = p;
    shape.pad = pad;
    shape.seed = static_cast<uint64_t>(K);
    const std::string name =
        " mask " + std::to_string(K) + " " + std::to_string(pad) + " p " + std::to_string(p);
    {
        rig g(shape);
        ops_case c(b, "lora_da" + name);
        g.make(c);
        const ops_tensor x = c.input(g.T, K, pad, 0, KERN_BF16, one);
        const ops_tensor ds = c.input(g.T, g.C, pad, 0, KERN_BF16, [&](int64_t t, int64_t j) {
            for (const kern_lora_block_t &k : g.blocks[GPU])
                if (j >= k.column && j < k.column + k.rank)
                    return (t - g.segments[static_cast<size_t>(k.adapter)].row0) == j - k.column
                               ? 1.0
                               : 0.0;
            return 0.0;
        });
        g.each(&kern_lora_block_t::da, [&](const kern_lora_block_t &k) {
            return c.inout(k.rank, K, pad, 0, KERN_F32, p == 0.5 ? EXACT : SUMMED,
                           [](int64_t, int64_t) { return 0.0; });
        });
        const auto args = [&](ops_side d) { return kern_lora_da_t{g.route(d), x(d), ds(d)}; };
        OPS_RUN(c, lora_da, args);
    }
    {
        rig g(shape);
        ops_case c(b, "lora_s" + name);
        g.make(c);
        const ops_tensor x = c.input(g.T, K, pad, 0, KERN_BF16, one);
        const ops_tensor s = c.output(g.T, g.C, pad, 0, KERN_BF16, p == 0.5 ? EXACT : ROUNDED);
        g.each(&kern_lora_block_t::a, [&](const kern_lora_block_t &k) {
            return c.input(k.rank, K, pad, 0, KERN_BF16,
                           [K](int64_t i, int64_t j) { return j == (i * 29 + 3) % K ? 1.0 : 0.0; });
        });
        const auto args = [&](ops_side d) { return kern_lora_s_t{g.route(d), x(d), s(d)}; };
        OPS_RUN(c, lora_s, args);
    }
    {
        rig g(shape);
        ops_case c(b, "lora_dx_dropout" + name);
        g.make(c);
        const ops_tensor ds = c.input(g.T, g.C, pad, 0, KERN_BF16, one);
        const ops_tensor dx = c.inout(g.T, K, pad, 0, KERN_BF16, p == 0.5 ? EXACT : ROUNDED,
                                      [](int64_t, int64_t) { return 0.0; });
        g.each(&kern_lora_block_t::a, [&](const kern_lora_block_t &k) {
            return c.input(k.rank, K, pad, 0, KERN_BF16,
                           [](int64_t i, int64_t) { return i == 0 ? 1.0 : 0.0; });
        });
        const auto args = [&](ops_side d) {
            return kern_lora_dx_dropout_t{g.route(d), ds(d), dx(d)};
        };
        OPS_RUN(c, lora_dx_dropout, args);
    }
}

/* In chunks of 8; ranks that need several tiles; more rows than a piece of dA has. */
const kern_case_lora_t LARGE[] = {
    {4, {130, 40, 65, 100}, {0, 1, -1, 2}, 512, 3, 3, {256, 64, 64}, {16, 16, 16}, {0}, 64, 101},
    {3, {100, 31, 90}, {1, -1, 0}, 264, 2, 2, {120, 128}, {8, 72}, {0.1, 0}, 8, 102},
    {2, {2100, 150}, {0, 1}, 192, 1, 2, {136}, {16, 64}, {0, 0.1}, 8, 103},
    {3, {70, 50, 33}, {0, 1, 2}, 520, 3, 3, {64, 32, 32}, {16, 16, 16}, {0.1, 0.1, 0.3}, 64, 104},
    {1, {48}, {0}, 136, 1, 1, {80}, {200}, {0.25}, 8, 105},
};

} // namespace

void ops_check_lora(ops_bench *b)
{
    for (int i = 0; i < num_kern_cases_lora; i++)
        products(b, kern_cases_lora[i], -1);
    for (const kern_case_lora_t &shape : LARGE) {
        products(b, shape, -1);
        products(b, shape, 1);
    }
    for (const double p : {0.5, 0.1}) {
        masks(b, 512, 8, p);
        masks(b, 77, 3, p);
        masks(b, 264, 0, p);
    }
}
