#include "tests/gpu/attention_bench.cuh"

#include <algorithm>

namespace
{

constexpr int64_t MEGA = int64_t{1} << 20;
constexpr int64_t MAX_PARTIAL = 300 * MEGA; /* elements of dk that a random cut may ask for */

/* Bump allocation in the master memory. */
template <class T> bool take(attention_bench *bench, int64_t count, T **p)
{
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    if (bench->master_used + bytes > base_buffer_bytes(bench->master)) return false;
    *p = static_cast<T *>(base_mem_address(base_mem(bench->master, bench->master_used)));
    bench->master_used += bytes;
    return true;
}

bool take_document(attention_bench *bench, const attention_shape &s, attention_document *doc)
{
    reference_doc &ref = doc->reference;
    const int64_t nq = doc->T - doc->q_begin, stats = s.G * nq * s.R, rows = stats * s.D;
    const int64_t keys = s.G * doc->T * s.D;
    __nv_bfloat16 *in[4];
    bool ok = take(bench, rows, &in[0]) && take(bench, keys, &in[1]) && take(bench, keys, &in[2]) &&
              take(bench, rows, &in[3]);
    ok = ok && take(bench, rows, &ref.o) && take(bench, stats, &ref.lse) &&
         take(bench, stats, &ref.delta) && take(bench, rows, &ref.dq) &&
         take(bench, keys, &ref.dk) && take(bench, keys, &ref.dv) &&
         take(bench, stats, &doc->delta);
    for (attention_results &r : doc->results)
        ok = ok && take(bench, rows, &r.o) && take(bench, rows, &r.dq) &&
             take(bench, keys, &r.dk) && take(bench, keys, &r.dv) && take(bench, stats, &r.lse);
    if (!ok) return false;
    ref.T = doc->T;
    ref.q_begin = doc->q_begin;
    ref.window = s.window;
    ref.G = s.G;
    ref.R = s.R;
    ref.D = s.D;
    ref.scale = s.scale;
    ref.q = in[0];
    ref.k = in[1];
    ref.v = in[2];
    ref.d_o = in[3];
    return true;
}

} // namespace

attention_bench *attention_bench_make(gpu_fixture *fx, const tr_attention_ops_t *ops)
{
    attention_bench *b = new attention_bench();
    b->fx = fx;
    b->ops = ops;
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, 12000 * MEGA, "master tensors",
                                 &b->master));
    b->q = gpu_pool_make(fx, 300 * MEGA, 2, "q");
    b->o = gpu_pool_make(fx, 400 * MEGA, 2, "o");
    b->d_o = gpu_pool_make(fx, 400 * MEGA, 2, "d_o");
    b->dq = gpu_pool_make(fx, 300 * MEGA, 2, "dq");
    b->k = gpu_pool_make(fx, 400 * MEGA, 2, "k");
    b->v = gpu_pool_make(fx, 400 * MEGA, 2, "v");
    b->dk = gpu_pool_make(fx, 500 * MEGA, 4, "dk");
    b->dv = gpu_pool_make(fx, 500 * MEGA, 4, "dv");
    b->lse = gpu_pool_make(fx, 16 * MEGA, 4, "lse");
    b->delta = gpu_pool_make(fx, 16 * MEGA, 4, "delta");
    b->workspace = gpu_pool_make(fx, 1000 * MEGA, 4, "workspace");
    for (int v = 0; v < 2; v++) {
        b->real[v] = gpu_pool_make(fx, 500 * MEGA, 2, "real dk, dv");
        b->rounded[v] = gpu_pool_make(fx, 500 * MEGA, 2, "rounded dk, dv");
    }
    return b;
}

void attention_bench_free(attention_bench *b)
{
    for (gpu_pool *pool : b->pools())
        gpu_pool_free(pool);
    base_buffer_free(b->master);
    delete b;
}

void attention_choose(attention_bench *b, attention_kernels kernels)
{
    b->kernels = kernels;
}

void attention_once(attention_bench *b)
{
    b->once = true;
}

std::vector<attention_document> &attention_documents_of(attention_bench *b)
{
    return b->documents;
}

bool attention_documents(attention_bench *b, const attention_shape &shape,
                         const std::vector<std::pair<int64_t, int64_t>> &documents, uint64_t seed)
{
    b->shape = shape;
    b->master_used = 0;
    b->documents.clear();
    for (const std::pair<int64_t, int64_t> &d : documents) {
        attention_document doc = {};
        doc.T = d.first;
        doc.q_begin = d.second;
        if (!take_document(b, shape, &doc)) return false;
        const int64_t rows = shape.G * (doc.T - doc.q_begin) * shape.R * shape.D;
        const int64_t keys = shape.G * doc.T * shape.D;
        const __nv_bfloat16 *in[4] = {doc.reference.q, doc.reference.k, doc.reference.v,
                                      doc.reference.d_o};
        for (int i = 0; i < 4; i++)
            gpu_fill_normal(b->fx, const_cast<__nv_bfloat16 *>(in[i]), i % 3 == 0 ? rows : keys,
                            gpu_random(&seed), i == 0 ? shape.q_deviation : 1.0f);
        b->documents.push_back(doc);
    }
    return true;
}

void attention_run_forward(attention_bench *b)
{
    for (const attention_document &doc : b->documents)
        attention_reference_forward(doc.reference, b->fx->native);
}

void attention_run_backward(attention_bench *b, bool given_delta)
{
    for (const attention_document &doc : b->documents)
        attention_reference_backward(doc.reference, given_delta ? doc.delta : nullptr,
                                     b->fx->native);
}

int64_t attention_kv_limit(const attention_shape &shape, int64_t row0)
{
    const int64_t key = shape.window > 0 ? row0 - shape.window + 1 : 0;
    return key > 0 ? key / KERN_ATTENTION_TILE * KERN_ATTENTION_TILE : 0;
}

std::vector<attention_cut> attention_whole(const attention_bench *b)
{
    std::vector<attention_cut> cuts;
    for (int d = static_cast<int>(b->documents.size()) - 1; d >= 0; d--) {
        const attention_document &doc = b->documents[static_cast<size_t>(d)];
        cuts.push_back({d, doc.q_begin, doc.T - doc.q_begin,
                        attention_kv_limit(b->shape, doc.q_begin), 0, b->shape.G});
    }
    return cuts;
}

/* Cuts on the grid of tiles, anywhere, or close together (many tasks); heads whole or split;
 * tasks without rows or heads between them; kv_row0 sometimes lower than need be. */
std::vector<attention_cut> attention_random_cuts(const attention_bench *b, uint64_t *seed)
{
    const attention_shape &s = b->shape;
    std::vector<attention_cut> cuts;
    int64_t partial = 0;
    for (int d = 0; d < static_cast<int>(b->documents.size()); d++) {
        const attention_document &doc = b->documents[static_cast<size_t>(d)];
        const int64_t mode = gpu_random_below(seed, 4), longest = mode == 3 ? 40 : 1500;
        for (int64_t row = doc.q_begin, end; row < doc.T; row = end) {
            end = row + gpu_random_log(seed, 1, longest);
            if (mode == 0) end = (end + 127) / 128 * 128;
            if (end > doc.T || partial > MAX_PARTIAL / 2 || cuts.size() > 300) end = doc.T;
            int64_t kv = attention_kv_limit(s, row);
            if (gpu_random_below(seed, 4) == 0)
                kv -= gpu_random_below(seed, kv / KERN_ATTENTION_TILE + 1) * KERN_ATTENTION_TILE;
            for (int h = 0, heads; h < s.G; h += heads) {
                heads = gpu_random_below(seed, 3) == 0
                            ? 1 + static_cast<int>(gpu_random_below(seed, s.G - h))
                            : s.G - h;
                cuts.push_back({d, row, end - row, kv, h, heads});
                partial += (end - kv) * heads * s.D;
            }
            if (gpu_random_below(seed, 8) == 0) cuts.push_back({d, row, 0, kv, 0, s.G});
            if (gpu_random_below(seed, 8) == 0) cuts.push_back({d, row, end - row, kv, 0, 0});
        }
    }
    for (size_t i = cuts.size(); i > 1; i--)
        std::swap(cuts[i - 1],
                  cuts[static_cast<size_t>(gpu_random_below(seed, static_cast<int64_t>(i)))]);
    return cuts;
}
