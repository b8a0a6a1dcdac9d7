#include "tests/gpu/attention_reference.cuh"

#include "tests/gpu/gpu_fixture.cuh"

#include <cmath>

namespace
{

constexpr int MAX_DIM =
    256; /* and threads of a block: one for each element of a row, 128 at least */

__device__ double value(const __nv_bfloat16 *p)
{
    return static_cast<double>(__bfloat162float(*p));
}

/* Eight elements at a time: threads read different rows, and device time is dear. */
__device__ double dot(const double *a, const __nv_bfloat16 *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i += 8) {
        const uint4 x = *reinterpret_cast<const uint4 *>(b + i);
        const uint32_t pair[4] = {x.x, x.y, x.z, x.w};
        for (int j = 0; j < 4; j++) {
            sum += a[i + 2 * j] * static_cast<double>(__uint_as_float(pair[j] << 16));
            sum += a[i + 2 * j + 1] * static_cast<double>(__uint_as_float(pair[j] & 0xffff0000u));
        }
    }
    return sum;
}

__device__ void load(double *to, const __nv_bfloat16 *from, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = value(from + i);
}

/* Where things of packed row p (token p / R, head p % R) of KV head h are. */
struct row_place {
    int64_t row, stat, q, o; /* position; element of lse; of q and dq; of o and d_o */
};
__device__ row_place place_of(const reference_doc &doc, int64_t p, int h)
{
    const int64_t nq = doc.T - doc.q_begin, token = p / doc.R, r = p % doc.R;
    const int64_t stat = (h * nq + token) * doc.R + r;
    return {doc.q_begin + token, stat, stat * doc.D, ((token * doc.G + h) * doc.R + r) * doc.D};
}

__device__ int64_t first_key(const reference_doc &doc, int64_t row)
{
    return doc.window > 0 && row - doc.window + 1 > 0 ? row - doc.window + 1 : 0;
}

__global__ void forward(reference_doc doc)
{
    __shared__ double q[MAX_DIM], part[MAX_DIM], lse;
    const int h = blockIdx.y, t = threadIdx.x, threads = blockDim.x;
    const row_place at = place_of(doc, blockIdx.x, h);
    const __nv_bfloat16 *k = doc.k + h * doc.T * doc.D, *v = doc.v + h * doc.T * doc.D;
    load(q, doc.q + at.q, doc.D);
    __syncthreads();
    double max = -INFINITY, sum = 0;
    for (int64_t j = first_key(doc, at.row) + t; j <= at.row; j += threads) {
        const double s = doc.scale * dot(q, k + j * doc.D, doc.D), bigger = fmax(max, s);
        sum = sum * exp(max - bigger) + exp(s - bigger);
        max = bigger;
    }
    part[t] = sum > 0 ? max + log(sum) : -INFINITY;
    __syncthreads();
    if (t == 0) {
        double all = part[0];
        for (int i = 1; i < threads; i++) {
            const double big = fmax(all, part[i]);
            if (big > -INFINITY) all = big + log(exp(all - big) + exp(part[i] - big));
        }
        lse = doc.lse[at.stat] = all;
    }
    __syncthreads();
    double o = 0;
    for (int64_t j0 = first_key(doc, at.row); j0 <= at.row; j0 += threads) {
        const int64_t j = j0 + t;
        __syncthreads();
        part[t] = j <= at.row ? exp(doc.scale * dot(q, k + j * doc.D, doc.D) - lse) : 0;
        __syncthreads();
        if (t < doc.D)
            for (int i = 0; i < threads && j0 + i <= at.row; i++)
                o += part[i] * value(v + (j0 + i) * doc.D + t);
    }
    __syncthreads();
    part[t] = t < doc.D ? o * value(doc.d_o + at.o + t) : 0;
    if (t < doc.D) doc.o[at.o + t] = o;
    __syncthreads();
    if (t == 0) {
        double delta = 0;
        for (int i = 0; i < doc.D; i++)
            delta += part[i];
        doc.delta[at.stat] = delta;
    }
}

__device__ double delta_of(const reference_doc &doc, const float *given, int64_t stat)
{
    return given != nullptr ? static_cast<double>(given[stat]) : doc.delta[stat];
}

__global__ void rows_backward(reference_doc doc, const float *given)
{
    __shared__ double q[MAX_DIM], d_o[MAX_DIM], ds[MAX_DIM];
    const int h = blockIdx.y, t = threadIdx.x, threads = blockDim.x;
    const row_place at = place_of(doc, blockIdx.x, h);
    const __nv_bfloat16 *k = doc.k + h * doc.T * doc.D, *v = doc.v + h * doc.T * doc.D;
    load(q, doc.q + at.q, doc.D);
    load(d_o, doc.d_o + at.o, doc.D);
    const double delta = delta_of(doc, given, at.stat);
    double dq = 0;
    for (int64_t j0 = first_key(doc, at.row); j0 <= at.row; j0 += threads) {
        const int64_t j = j0 + t;
        __syncthreads();
        ds[t] = j <= at.row ? exp(doc.scale * dot(q, k + j * doc.D, doc.D) - doc.lse[at.stat]) *
                                  (dot(d_o, v + j * doc.D, doc.D) - delta)
                            : 0;
        __syncthreads();
        if (t < doc.D)
            for (int i = 0; i < threads && j0 + i <= at.row; i++)
                dq += ds[i] * value(k + (j0 + i) * doc.D + t);
    }
    if (t < doc.D) doc.dq[at.q + t] = doc.scale * dq;
}

__global__ void keys_backward(reference_doc doc, const float *given)
{
    __shared__ double k[MAX_DIM], v[MAX_DIM], p[MAX_DIM], ds[MAX_DIM];
    const int h = blockIdx.y, t = threadIdx.x, threads = blockDim.x;
    const int64_t j = blockIdx.x, kv = (h * doc.T + j) * doc.D;
    const int64_t begin = (j > doc.q_begin ? j - doc.q_begin : 0) * doc.R;
    const int64_t last = doc.window > 0 && j + doc.window < doc.T ? j + doc.window : doc.T;
    const int64_t end = (last - doc.q_begin) * doc.R;
    load(k, doc.k + kv, doc.D);
    load(v, doc.v + kv, doc.D);
    double dk = 0, dv = 0;
    for (int64_t p0 = begin; p0 < end; p0 += threads) {
        __syncthreads();
        p[t] = ds[t] = 0;
        if (p0 + t < end) {
            const row_place at = place_of(doc, p0 + t, h);
            p[t] = exp(doc.scale * dot(k, doc.q + at.q, doc.D) - doc.lse[at.stat]);
            ds[t] = p[t] * (dot(v, doc.d_o + at.o, doc.D) - delta_of(doc, given, at.stat));
        }
        __syncthreads();
        if (t < doc.D)
            for (int i = 0; i < threads && p0 + i < end; i++) {
                const row_place at = place_of(doc, p0 + i, h);
                dv += p[i] * value(doc.d_o + at.o + t);
                dk += ds[i] * value(doc.q + at.q + t);
            }
    }
    if (t < doc.D) {
        doc.dk[kv + t] = doc.scale * dk;
        doc.dv[kv + t] = dv;
    }
}

} // namespace

static int threads_of(const reference_doc &doc)
{
    return doc.D > 128 ? MAX_DIM : 128;
}

static dim3 blocks_of(const reference_doc &doc, int64_t count)
{
    return dim3(static_cast<unsigned>(count), static_cast<unsigned>(doc.G));
}

void attention_reference_forward(const reference_doc &doc, cudaStream_t stream)
{
    const int64_t packed = (doc.T - doc.q_begin) * doc.R;
    if (packed > 0) forward<<<blocks_of(doc, packed), threads_of(doc), 0, stream>>>(doc);
    GPU_CUDA(cudaGetLastError());
}

void attention_reference_backward(const reference_doc &doc, const float *given_delta,
                                  cudaStream_t stream)
{
    const int64_t packed = (doc.T - doc.q_begin) * doc.R;
    if (packed > 0)
        rows_backward<<<blocks_of(doc, packed), threads_of(doc), 0, stream>>>(doc, given_delta);
    if (doc.T > 0)
        keys_backward<<<blocks_of(doc, doc.T), threads_of(doc), 0, stream>>>(doc, given_delta);
    GPU_CUDA(cudaGetLastError());
}
