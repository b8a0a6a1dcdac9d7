#include "tests/gpu/attention_dump.cuh"

#include <cmath>
#include <cstdio>
#include <string>

namespace
{

template <class T> void write(FILE *file, const T *device, int64_t count)
{
    std::vector<T> host(static_cast<size_t>(count));
    GPU_CUDA(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
    if (fwrite(host.data(), sizeof(T), host.size(), file) != host.size())
        gpu_fail(__FILE__, __LINE__, "dump", "cannot be written");
}

void write_document(const attention_shape &s, const attention_document &doc, const char *path)
{
    const int64_t keys = s.G * doc.T * s.D, rows = keys * s.R;
    const int64_t head[] = {doc.T, s.G, s.R, s.D};
    const reference_doc &ref = doc.reference;
    const attention_results &ops = doc.results[0];
    FILE *file = fopen(path, "wb");
    if (file == nullptr || fwrite(head, sizeof head, 1, file) != 1)
        gpu_fail(__FILE__, __LINE__, path, "cannot be written");
    write(file, ref.q, rows);
    write(file, ref.k, keys);
    write(file, ref.v, keys);
    write(file, ref.d_o, rows);
    write(file, ops.o, rows);
    write(file, ops.dq, rows);
    write(file, ops.dk, keys);
    write(file, ops.dv, keys);
    write(file, ref.o, rows);
    write(file, ref.dq, rows);
    write(file, ref.dk, keys);
    write(file, ref.dv, keys);
    if (fclose(file) != 0) gpu_fail(__FILE__, __LINE__, path, "cannot be written");
}

} // namespace

void attention_dump(gpu_fixture *fx, const tr_attention_ops_t *ops, int64_t rows,
                    const char *folder)
{
    attention_bench *bench = attention_bench_make(fx, ops);
    for (const int D : {64, 128}) {
        const attention_shape s = {2, 4, D, 0, 1.0 / std::sqrt(static_cast<double>(D)), 1.0f};
        uint64_t seed = 3;
        if (!attention_documents(bench, s, {{rows, 0}}, 21))
            gpu_fail(__FILE__, __LINE__, "dump", "the master memory is too small");
        attention_run_forward(bench);
        (void)attention_run(bench, attention_whole(bench), 1, 0, &seed);
        attention_run_backward(bench, false);
        gpu_sync(fx);
        const std::string path = std::string(folder) + "/" + std::to_string(D) + ".bin";
        write_document(s, attention_documents_of(bench)[0], path.c_str());
        printf("dump: %s\n", path.c_str());
    }
    attention_bench_free(bench);
}
