/* The ops of an adapter's step. */
#include "tests/gpu/ops_case.cuh"

#include <cmath>

namespace
{

struct tensor_shape {
    int64_t rows, cols, pad, shift;
    int64_t copy_pad; /* beyond pad, of adamw's copies */
};
const std::vector<tensor_shape> LISTS[] = {
    {},
    {{1, 1, 0, 0, 0}},
    {{3, 7, 2, 1, 0}, {0, 5, 0, 0, 0}, {16, 4096, 0, 0, 16}, {200, 16, 48, 0, 0}},
    {{1, 40000, 0, 0, 0},
     {40, 1000, 0, 3, 0},
     {5, 16384, 8, 0, 0},
     {16384, 16, 0, 0, 48},
     {7, 1028, 0, 0, 4},
     {33, 12, 0, 0, 2}},
};

/* before: what count holds, kept; below 0: count is written. */
void finite(ops_bench *b, size_t list, const std::string &name, kern_dtype_t dtype, int32_t before,
            const std::function<ops_value(const ops_value &normal)> &value)
{
    ops_case c(b, "finite_check " + name + kern_dtype_name(dtype) + " " + std::to_string(before));
    std::vector<kern_mat_t> mats[2];
    for (const tensor_shape &s : LISTS[list]) {
        const ops_tensor t = c.input(s.rows, s.cols, s.pad, s.shift, dtype, value(c.normal()));
        for (const ops_side d : {GPU, CPU})
            mats[d].push_back(t(d));
    }
    const ops_tensor count = before < 0 ? c.output(1, 1, 0, 0, KERN_I32, EXACT)
                                        : c.inout(1, 1, 0, 0, KERN_I32, EXACT,
                                                  [before](int64_t, int64_t) { return before; });
    const auto args = [&](ops_side d) {
        return kern_finite_check_t{d == GPU ? dtype : KERN_F64,
                                   static_cast<int64_t>(mats[d].size()), mats[d].data(), count(d),
                                   before >= 0};
    };
    OPS_RUN(c, finite_check, args);
}

void norms(ops_bench *b, size_t list, bool broken)
{
    const std::string name = std::to_string(list) + (broken ? " broken" : "");
    const auto value = [&](const ops_value &normal) {
        return [normal, broken](int64_t i, int64_t j) -> double {
            if (broken && (i * 7 + j) % 13 == 5) return i % 2 ? NAN : -INFINITY;
            return normal(i, j) * 1e-4;
        };
    };
    {
        ops_case c(b, "grad_norm " + name);
        std::vector<kern_mat_t> mats[2];
        for (const tensor_shape &s : LISTS[list]) {
            const ops_tensor t =
                c.input(s.rows, s.cols, s.pad, s.shift, KERN_F32, value(c.normal()));
            for (const ops_side d : {GPU, CPU})
                mats[d].push_back(t(d));
        }
        const ops_tensor sum = c.output(1, 1, 0, 0, KERN_F32, {0x1p-18, 0});
        const auto args = [&](ops_side d) {
            return kern_grad_norm_t{static_cast<int64_t>(mats[d].size()), mats[d].data(), sum(d)};
        };
        OPS_RUN(c, grad_norm, args);
    }
    for (const kern_dtype_t dtype : {KERN_F32, KERN_BF16})
        for (const int32_t before : {-1, 0, 5, INT32_MAX - 2})
            finite(b, list, name, dtype, before, value);
}

void clip(ops_bench *b)
{
    for (const double sum : {0.0, 1e-9, 0.5, 4.0, 1e12, static_cast<double>(NAN)})
        for (const double limit : {1.0, 0.01, static_cast<double>(INFINITY)}) {
            ops_case c(b, "clip_factor " + std::to_string(sum) + " " + std::to_string(limit),
                       oracle::f32);
            const ops_tensor in =
                c.input(1, 1, 0, 0, KERN_F32, [sum](int64_t, int64_t) { return sum; });
            const ops_tensor norm = c.output(1, 1, 0, 0, KERN_F32, EXACT);
            const ops_tensor factor = c.output(1, 1, 0, 0, KERN_F32, {0x1p-23, 0});
            const auto args = [&](ops_side d) {
                return kern_clip_factor_t{in(d), norm(d), factor(d), limit};
            };
            OPS_RUN(c, clip_factor, args);
        }
}

void run_adamw(ops_case &c, const std::vector<kern_adamw_tensor_t> (&tensors)[2], int64_t step,
               int skip)
{
    const ops_tensor factor =
        c.input(1, 1, 0, 0, KERN_F32, [](int64_t, int64_t) { return 0.3125; });
    const ops_tensor flag =
        c.input(1, 1, 0, 0, KERN_I32, [skip](int64_t, int64_t) { return skip; });
    const auto args = [&](ops_side d) {
        kern_adamw_t a = {};
        a.dtype = d == GPU ? KERN_BF16 : KERN_F32;
        a.num_tensors = static_cast<int64_t>(tensors[d].size());
        a.tensors = tensors[d].data();
        a.learning_rate = 1e-3;
        a.beta1 = 0.9;
        a.beta2 = 0.999;
        a.eps = 1e-8;
        a.weight_decay = 0.01;
        a.step = step;
        a.clip = factor(d);
        a.skip = flag(d);
        return a;
    };
    OPS_RUN(c, adamw, args);
}

/* Against the fp32 oracle: masters and moments have its bits. */
void adamw(ops_bench *b, size_t list, int64_t step, int skip)
{
    ops_case c(b,
               "adamw " + std::to_string(list) + " " + std::to_string(step) + " " +
                   std::to_string(skip),
               oracle::f32);
    std::vector<kern_adamw_tensor_t> tensors[2];
    for (const tensor_shape &s : LISTS[list]) {
        const ops_value v0 = c.normal(1e-3);
        const auto squared = [v0](int64_t i, int64_t j) { return v0(i, j) * v0(i, j); };
        const ops_tensor w = c.inout(s.rows, s.cols, 0, s.shift, KERN_F32, EXACT, c.normal());
        const ops_tensor m = c.inout(s.rows, s.cols, 0, 0, KERN_F32, EXACT, c.normal(1e-3));
        const ops_tensor v = c.inout(s.rows, s.cols, 0, 0, KERN_F32, EXACT, squared);
        const ops_tensor g = c.input(s.rows, s.cols, s.pad, s.shift, KERN_F32, c.normal(1e-2));
        const ops_tensor copy =
            c.inout(s.rows, s.cols, s.pad + s.copy_pad, 0, KERN_BF16, ROUNDED, c.normal());
        for (const ops_side d : {GPU, CPU})
            tensors[d].push_back({w(d), m(d), v(d), g(d), copy(d)});
    }
    run_adamw(c, tensors, step, skip);
}

/* All pairs of numbers that the fast quotients leave out, or nearly so; no copies. */
void adamw_hard(ops_bench *b, int64_t step, int64_t shift)
{
    static const double NUMBERS[] = {0.0,     -0.0,    1.0,      -3e-5,   0x1p-149, -0x1p-126,
                                     0x1p-99, 0x1p-95, 0x1p-60,  -0x1p41, 0x1p63,   3e38,
                                     1e-8,    -1e-20,  INFINITY, NAN};
    constexpr int64_t COUNT = sizeof NUMBERS / sizeof NUMBERS[0];
    ops_case c(b, "adamw hard " + std::to_string(step) + " " + std::to_string(shift), oracle::f32);
    std::vector<kern_adamw_tensor_t> tensors[2];
    for (const double v0 : {0.0, 1e-44, 0x1p-101, 0x1p-99, 1e-12, 1.0, 0x1p39, 0x1p41, 3e38,
                            static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
        const auto number = [](int64_t i, int64_t j) { return NUMBERS[(i + j) % COUNT]; };
        const ops_tensor w = c.inout(COUNT, COUNT, 0, shift, KERN_F32, EXACT, number);
        const ops_tensor m = c.inout(COUNT, COUNT, 0, 0, KERN_F32, EXACT,
                                     [](int64_t i, int64_t) { return NUMBERS[i]; });
        const ops_tensor v =
            c.inout(COUNT, COUNT, 0, 0, KERN_F32, EXACT, [v0](int64_t, int64_t) { return v0; });
        const ops_tensor g =
            c.input(COUNT, COUNT, 0, 0, KERN_F32, [](int64_t, int64_t j) { return NUMBERS[j]; });
        for (const ops_side d : {GPU, CPU})
            tensors[d].push_back({w(d), m(d), v(d), g(d), c.none()(d)});
    }
    run_adamw(c, tensors, step, 0);
}

/* Both add in fp32 and in the order listed, so the bits are the same. in_place: the sum replaces the
 * last part. */
void vector_sum(ops_bench *b, int64_t count, int num_parts, int64_t shift, bool in_place)
{
    ops_case c(b,
               "vector_sum " + std::to_string(count) + " " + std::to_string(num_parts) + " " +
                   std::to_string(shift) + (in_place ? " in place" : ""),
               oracle::f32);
    std::vector<ops_tensor> parts;
    for (int i = 0; i < num_parts; i++) {
        const ops_value normal = c.normal(1 + i % 5);
        const auto value = [&](int64_t row, int64_t col) {
            return i == 0 && col % 61 == 7 ? -INFINITY : normal(row, col);
        };
        const bool result = in_place && i == num_parts - 1;
        parts.push_back(result ? c.inout(1, count, 0, shift, KERN_F32, EXACT, value)
                               : c.input(1, count, 0, shift, KERN_F32, value));
    }
    const ops_tensor dst = in_place ? parts.back() : c.output(1, count, 0, shift, KERN_F32, EXACT);
    const auto args = [&](ops_side d) {
        kern_vector_sum_t a = {};
        a.dst = dst(d);
        a.num_parts = num_parts;
        for (int i = 0; i < num_parts; i++)
            a.parts[i] = parts[static_cast<size_t>(i)](d).mem;
        return a;
    };
    OPS_RUN(c, vector_sum, args);
}

} // namespace

void ops_check_step(ops_bench *b)
{
    for (const int num_parts : {1, 2, 3, KERN_VECTOR_SUM_MAX_PARTS})
        for (const int64_t count : {1, 5, 4099, 70001})
            for (const int64_t shift : {0, 1})
                vector_sum(b, count, num_parts, shift, num_parts % 2 == 0);
    vector_sum(b, 1100003, 2, 0, false); /* more than one turn of a thread */
    for (size_t list = 0; list < sizeof LISTS / sizeof LISTS[0]; list++) {
        norms(b, list, false);
        norms(b, list, true);
        adamw(b, list, 1, 0);
        adamw(b, list, 1000, 0);
        adamw(b, list, 7, 3);
    }
    for (const int64_t step : {1, 100, 100000})
        for (const int64_t shift : {0, 1})
            adamw_hard(b, step, shift);
    clip(b);
}
