/* One case of an op: the same operands on a GPU, rounded to its dtypes, and on the CPU in double
 * (or fp32); both run; results are compared within a tolerance; everything that is no result must
 * keep its bytes (guard zones and gaps between rows are NaN), and a second run on the GPU must give
 * the same bytes. */
#ifndef CADRE_TESTS_GPU_OPS_CASE_CUH
#define CADRE_TESTS_GPU_OPS_CASE_CUH

#include "tests/gpu/gpu_fixture.cuh"
#include "tests/gpu/ops_sides.h"

#include <functional>
#include <string>
#include <vector>

enum ops_side { GPU, CPU };
/* What bf16 and fp32 of the GPU are on the CPU. */
enum class oracle { f64, f32, same };

/* |got - want| <= relative |want| + scaled max |want|. 0, 0: the same bits (NaN: any NaN). */
struct tolerance {
    double relative, scaled;
};
/* One rounding to bf16 (2^-9) of an fp32 result that may lie between two; sums in fp32. */
constexpr tolerance ROUNDED = {0x1p-8, 0x1p-16};
constexpr tolerance SUMMED = {0x1p-17, 0x1p-17};
constexpr tolerance EXACT = {0, 0};

struct ops_tensor {
    kern_mat_t mat[2];
    bool result;
    tolerance tol;
    kern_mat_t operator()(ops_side side) const
    {
        return mat[side];
    }
};

using ops_value = std::function<double(int64_t row, int64_t col)>;

struct ops_bench; /* devices and buffers that cases share */
ops_bench *ops_bench_open(gpu_fixture *fx);
void ops_bench_close(ops_bench *bench);
gpu_fixture *ops_bench_gpu(ops_bench *bench);

class ops_case
{
  public:
    ops_case(ops_bench *bench, const std::string &name, oracle o = oracle::f64);

    /* rows x cols with pitch cols + pad, `shift` elements after a multiple of 256 bytes. */
    ops_tensor input(int64_t rows, int64_t cols, int64_t pad, int64_t shift, kern_dtype_t dtype,
                     const ops_value &value);
    /* NaN before the op. */
    ops_tensor output(int64_t rows, int64_t cols, int64_t pad, int64_t shift, kern_dtype_t dtype,
                      tolerance tol);
    ops_tensor inout(int64_t rows, int64_t cols, int64_t pad, int64_t shift, kern_dtype_t dtype,
                     tolerance tol, const ops_value &value);
    ops_tensor none() const
    {
        return {};
    }

    /* Normal values of that deviation. */
    ops_value normal(double deviation = 1.0);
    uint64_t seed;

    /* Runs both; prints and counts a failure. */
    void run(const std::function<base_status_t(base_stream_t *)> &on_gpu,
             const std::function<base_status_t(base_stream_t *)> &on_cpu);

  private:
    ops_tensor add(int64_t rows, int64_t cols, int64_t pad, int64_t shift, kern_dtype_t dtype,
                   bool result, tolerance tol, const ops_value &value);
    double compare(const ops_tensor &t, const std::vector<unsigned char> &got, std::string *fault);
    ops_bench *bench;
    std::string name;
    oracle kind;
    int64_t used[2];
    std::vector<ops_tensor> tensors;
    std::vector<unsigned char> image; /* of the GPU's buffer */
};

/* args(side) gives the op's arguments. */
#define OPS_RUN(c, op, args)                                                                       \
    (c).run(                                                                                       \
        [&](base_stream_t *s_) {                                                                   \
            auto a_ = args(GPU);                                                                   \
            return gpu_##op(s_, &a_);                                                              \
        },                                                                                         \
        [&](base_stream_t *s_) {                                                                   \
            auto a_ = args(CPU);                                                                   \
            return cpu_##op(s_, &a_);                                                              \
        })

/* Cases, failures and the worst error over its tolerance, by op (the name up to a space). */
struct ops_summary {
    std::string op;
    int cases, failures;
    double worst;
};
const std::vector<ops_summary> &ops_bench_summary(const ops_bench *bench);

void ops_check_dense(ops_bench *bench);
void ops_check_products(ops_bench *bench);
void ops_check_rows(ops_bench *bench);
void ops_check_lora(ops_bench *bench);
void ops_check_step(ops_bench *bench);

#endif
