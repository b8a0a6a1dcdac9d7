/* ops_check [--json FILE] [SECTION...]: the CUDA ops against the CPU ops (dense products rows step
 * lora), and their speed (timing gemm pitch linear). All of them without a section. */
#include "tests/gpu/ops_case.cuh"
#include "tests/gpu/ops_timing.cuh"

#include <cstring>

namespace
{

void print_summary(const ops_bench *bench, FILE *json, int *failed)
{
    const char *comma = "";
    printf("%-18s %6s %6s   worst error, of its tolerance\n", "op", "cases", "failed");
    if (json != nullptr) fprintf(json, "\"cases\": [");
    for (const ops_summary &s : ops_bench_summary(bench)) {
        printf("%-18s %6d %6d   %.3f\n", s.op.c_str(), s.cases, s.failures, s.worst);
        if (json != nullptr)
            fprintf(json, "%s\n{\"op\": \"%s\", \"cases\": %d, \"failed\": %d, \"worst\": %.4g}",
                    comma, s.op.c_str(), s.cases, s.failures, s.worst < 1e9 ? s.worst : 1e9);
        comma = ",";
        *failed |= s.failures > 0;
    }
    if (json != nullptr) fprintf(json, "],\n");
}

struct section {
    const char *name;
    void (*check)(ops_bench *bench);
    void (*time)(gpu_fixture *fx, FILE *json);
};
const section SECTIONS[] = {
    {"dense", ops_check_dense, nullptr},    {"products", ops_check_products, nullptr},
    {"rows", ops_check_rows, nullptr},      {"step", ops_check_step, nullptr},
    {"lora", ops_check_lora, nullptr},      {"timing", nullptr, ops_timing},
    {"gemm", nullptr, ops_timing_gemm},     {"pitch", nullptr, ops_timing_pitch},
    {"linear", nullptr, ops_timing_linear},
};

} // namespace

int main(int argc, char **argv)
{
    gpu_fixture fx;
    FILE *json = nullptr;
    int failed = 0, chosen = 0;
    gpu_open(&fx);
    printf("%s\n", fx.name);
    if (argc > 2 && strcmp(argv[1], "--json") == 0) {
        json = fopen(argv[2], "w");
        if (json == nullptr) gpu_fail(__FILE__, __LINE__, argv[2], "cannot be written");
        fprintf(json, "{\"gpu\": \"%s\",\n", fx.name);
        argc -= 2;
        argv += 2;
    }
    const auto wanted = [&](const char *name) {
        for (int i = 1; i < argc; i++)
            if (strcmp(argv[i], name) == 0) return true;
        return argc == 1;
    };
    ops_bench *bench = ops_bench_open(&fx);
    for (const section &s : SECTIONS)
        if (s.check != nullptr && wanted(s.name)) {
            s.check(bench);
            chosen++;
        }
    print_summary(bench, json, &failed);
    ops_bench_close(bench);
    for (const section &s : SECTIONS)
        if (s.time != nullptr && wanted(s.name)) {
            s.time(&fx, json);
            chosen++;
        }
    if (json != nullptr) {
        fprintf(json, "\"failed\": %d}\n", failed);
        fclose(json);
    }
    gpu_close(&fx);
    if (chosen == 0)
        gpu_fail(__FILE__, __LINE__, "sections",
                 "dense products rows step lora timing gemm pitch linear");
    printf("%s\n", failed ? "FAILED" : "ok");
    return failed;
}
