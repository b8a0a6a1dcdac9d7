/* The CUDA attention ops against their definition and for their properties:
 *
 *   attention_check [--json FILE] [--ops NAME] [SECTION...]
 *
 *   fuzz [CASES] [SEED]   random batches against the definition in double; NaN round every piece;
 *                         nothing else written; the same bits of o, lse and dq cut and whole, and
 *                         of dk and dv in any placement of one cut, and rounded by the op or by a sum
 *   long                  the same of whole documents whose backward takes several rounds of blocks
 *   repeats [N]           the same bits N times
 *   parts                 attention_delta and partial_sum by themselves, and refused calls
 *   dump FOLDER           a document, what it should give and what the ops give, for
 *                         attention_accuracy.py
 *   small                 a few small cases without comparison, for compute-sanitizer
 *
 * Without a section: parts, fuzz 500, long, repeats 1000. --ops: a variant of attention_try.h in place of
 * the ops. One file, no libraries beyond the driver. Exit: 0 all held; 1 something did not; 77 no
 * GPU. attention_bench has the speed. */
#include "tests/gpu/attention_case.cuh"
#include "tests/gpu/attention_dump.cuh"
#include "tests/gpu/attention_parts.cuh"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace
{

struct gate {
    const char *name;
    double limit, worst;
    uint64_t worst_seed;
};
enum { O, LSE, DQ, DK, DV, DQ_EXACT, DK_EXACT, O_MMA, DQ_MMA, DK_MMA, DV_MMA, NUM_GATES };

struct fuzz_state {
    gate gates[NUM_GATES] = {
        {"o", 5e-3, 0, 0},        {"lse", 1e-3, 0, 0},   {"dq", 1e-2, 0, 0},
        {"dk", 1e-2, 0, 0},       {"dv", 1e-2, 0, 0},    {"dq_exact", 1e-2, 0, 0},
        {"dk_exact", 1e-2, 0, 0}, {"o_mma", 5e-3, 0, 0}, {"dq_mma", 1e-2, 0, 0},
        {"dk_mma", 1e-2, 0, 0},   {"dv_mma", 1e-2, 0, 0}};
    int cases = 0, failures = 0;
    int64_t tasks = 0, most_tasks = 0, most_keys = 0, most_rows = 0;
    double pairs = 0;
};

/* Norms of small documents can vanish (one row: dq = 0): then the error counts against this root
 * mean square. */
constexpr double QUIET = 1e-3;
constexpr int64_t FEW_ROWS = 64;

double relative(const gpu_difference &d, int64_t count)
{
    if (!std::isfinite(d.max_abs)) return INFINITY;
    return d.error / std::max(d.norm, QUIET * std::sqrt(static_cast<double>(count)));
}

void judge(fuzz_state *state, int which, double error, uint64_t seed, const char *shape)
{
    gate &g = state->gates[which];
    if (!(error <= g.limit)) {
        state->failures++;
        printf("FAILED seed %llu: %s: error %.3g, allowed %.3g (%s)\n",
               static_cast<unsigned long long>(seed), g.name, error, g.limit, shape);
    }
    if (!(error <= g.worst)) {
        g.worst = error;
        g.worst_seed = seed;
    }
}

void compare_document(gpu_fixture *fx, fuzz_state *state, const attention_shape &s,
                      const attention_document &doc, int slot, uint64_t seed, const char *shape)
{
    const int64_t nq = doc.T - doc.q_begin, stats = s.G * nq * s.R, rows = stats * s.D;
    const int64_t keys = s.G * doc.T * s.D;
    const attention_results &r = doc.results[slot];
    const reference_doc &want = doc.reference;
    if (nq == 0) return;
    judge(state, O, relative(gpu_compare(fx, r.o, want.o, rows), rows), seed, shape);
    const double lse = gpu_compare(fx, r.lse, want.lse, stats).max_abs;
    judge(state, LSE, std::isfinite(lse) ? lse : INFINITY, seed, shape);
    judge(state, DQ, relative(gpu_compare(fx, r.dq, want.dq, rows), rows), seed, shape);
    judge(state, DK, relative(gpu_compare(fx, r.dk, want.dk, keys), keys), seed, shape);
    judge(state, DV, relative(gpu_compare(fx, r.dv, want.dv, keys), keys), seed, shape);
}

void expect_zero(fuzz_state *state, int64_t n, uint64_t seed, const char *what, const char *shape)
{
    if (n == 0) return;
    state->failures++;
    printf("FAILED seed %llu: %s: %lld places (%s)\n", static_cast<unsigned long long>(seed), what,
           static_cast<long long>(n), shape);
}

/* The mma.sync kernels, which the ops choose only where the copy engine cannot be used: the forward
 * against the definition, all against the ops' choice. Gradients of few rows may differ more (see
 * compare_exact), since each forward has its own delta. */
void compare_mma(gpu_fixture *fx, attention_bench *bench, fuzz_state *state,
                 const attention_shape &s, uint64_t seed, const char *shape)
{
    uint64_t placement = seed;
    attention_choose(bench, attention_kernels::mma);
    expect_zero(state, attention_run(bench, attention_whole(bench), 1, 1, &placement), seed,
                "written outside or rounded otherwise", shape);
    attention_choose(bench, attention_kernels::op);
    for (const attention_document &doc : attention_documents_of(bench)) {
        const attention_results &r = doc.results[1];
        const int64_t stats = s.G * (doc.T - doc.q_begin) * s.R, rows = stats * s.D;
        if (stats == 0) continue;
        judge(state, O, relative(gpu_compare(fx, r.o, doc.reference.o, rows), rows), seed, shape);
        const double lse = gpu_compare(fx, r.lse, doc.reference.lse, stats).max_abs;
        judge(state, LSE, std::isfinite(lse) ? lse : INFINITY, seed, shape);
        const attention_results &op = doc.results[0];
        const int64_t keys = s.G * doc.T * s.D;
        judge(state, O_MMA, relative(gpu_compare(fx, r.o, op.o, rows), rows), seed, shape);
        if (doc.T - doc.q_begin < FEW_ROWS) continue;
        judge(state, DQ_MMA, relative(gpu_compare(fx, r.dq, op.dq, rows), rows), seed, shape);
        judge(state, DK_MMA, relative(gpu_compare(fx, r.dk, op.dk, keys), keys), seed, shape);
        judge(state, DV_MMA, relative(gpu_compare(fx, r.dv, op.dv, keys), keys), seed, shape);
    }
}

/* Against the gradient of the exact forward. delta = rowsum(d_o o) takes o rounded to bf16;
 * where a document has few rows and the softmax is peaked, dp - delta is the small difference of
 * two such numbers, whoever computes it. */
void compare_exact(gpu_fixture *fx, fuzz_state *state, const attention_shape &s,
                   const attention_document &doc, uint64_t seed, const char *shape)
{
    const int64_t nq = doc.T - doc.q_begin, rows = s.G * nq * s.R * s.D, keys = s.G * doc.T * s.D;
    const reference_doc &want = doc.reference;
    if (nq < FEW_ROWS) return;
    judge(state, DQ_EXACT, relative(gpu_compare(fx, doc.results[0].dq, want.dq, rows), rows), seed,
          shape);
    judge(state, DK_EXACT, relative(gpu_compare(fx, doc.results[0].dk, want.dk, keys), keys), seed,
          shape);
}

/* Elements of which the bits differ between the two slots. */
int64_t different(gpu_fixture *fx, const attention_shape &s, const attention_document &doc,
                  bool dkv)
{
    const int64_t stats = s.G * (doc.T - doc.q_begin) * s.R, keys = s.G * doc.T * s.D;
    const attention_results *r = doc.results;
    if (dkv)
        return gpu_count_different(fx, r[0].dk, r[1].dk, 2 * keys) +
               gpu_count_different(fx, r[0].dv, r[1].dv, 2 * keys);
    return gpu_count_different(fx, r[0].o, r[1].o, 2 * stats * s.D) +
           gpu_count_different(fx, r[0].dq, r[1].dq, 2 * stats * s.D) +
           gpu_count_different(fx, r[0].lse, r[1].lse, 4 * stats);
}

/* ==== random cases ==== */

attention_shape random_shape(uint64_t *seed)
{
    static const int groups[] = {1, 2, 4, 5, 7, 8, 16}, others[] = {8, 32, 80, 96, 192, 256};
    static const int64_t windows[] = {0, 0, 0, 0, 1, 127, 128, 200, 1024, 2500, 5000};
    attention_shape s;
    s.G = 1 + static_cast<int>(gpu_random_below(seed, 3));
    s.R = groups[gpu_random_below(seed, 7)];
    s.D = gpu_random_below(seed, 3) == 0 ? 64 : 128;
    if (gpu_random_below(seed, 8) == 0) s.D = others[gpu_random_below(seed, 6)];
    s.window = windows[gpu_random_below(seed, 11)];
    s.scale = 1.0 / std::sqrt(static_cast<double>(s.D));
    s.q_deviation = gpu_random_below(seed, 4) == 0 ? 4.0f : 1.0f;
    return s;
}

double pairs_of(const attention_shape &s, const std::pair<int64_t, int64_t> &d)
{
    const double mean = 0.5 * static_cast<double>(d.first + d.second);
    const double seen = s.window > 0 ? std::min(mean, static_cast<double>(s.window)) : mean;
    return seen * static_cast<double>(d.first - d.second) * s.R * s.G;
}

/* Documents of {T, q_begin}: up to 4096 rows on prefixes up to 32k, within a number of (row,
 * key) pairs that the reference can do. */
std::vector<std::pair<int64_t, int64_t>> random_documents(const attention_shape &s, double limit,
                                                          uint64_t *seed)
{
    std::vector<std::pair<int64_t, int64_t>> documents;
    const int64_t count = 1 + gpu_random_below(seed, 3);
    for (int64_t i = 0; i < count; i++) {
        const int64_t edges[] = {0, 1, 127, 128, 129};
        int64_t rows = gpu_random_below(seed, 5) == 0 ? edges[gpu_random_below(seed, 5)]
                                                      : gpu_random_log(seed, 1, 4096);
        int64_t prefix = gpu_random_below(seed, 5) < 2 ? 0 : gpu_random_log(seed, 1, 32768);
        while (pairs_of(s, {prefix + rows, prefix}) * static_cast<double>(count) > limit) {
            if (gpu_random_below(seed, 2) == 0)
                rows = (rows + 1) / 2;
            else
                prefix /= 2;
        }
        documents.push_back({prefix + rows, prefix});
    }
    return documents;
}

/* Random cuts of documents of {T, q_begin}, in random places, by random kernels, or always with a workspace. */
void check_documents(gpu_fixture *fx, attention_bench *bench, fuzz_state *state,
                     const attention_shape &s,
                     const std::vector<std::pair<int64_t, int64_t>> &documents, bool workspace,
                     uint64_t case_seed, uint64_t seed)
{
    char text[256];
    int used = snprintf(text, sizeof text, "G %d, R %d, D %d, window %lld, rows:prefix", s.G, s.R,
                        s.D, static_cast<long long>(s.window));
    for (const std::pair<int64_t, int64_t> &d : documents)
        used +=
            snprintf(text + used, sizeof text - static_cast<size_t>(used), " %lld:%lld",
                     static_cast<long long>(d.first - d.second), static_cast<long long>(d.second));
    if (!attention_documents(bench, s, documents, seed))
        gpu_fail(__FILE__, __LINE__, text, "the master memory is too small");
    attention_run_forward(bench);
    attention_choose(bench, gpu_random_below(&seed, 3) == 0 && !workspace
                                ? attention_kernels::op_without_workspace
                                : attention_kernels::op);

    const std::vector<attention_cut> cuts = attention_random_cuts(bench, &seed);
    const int calls = gpu_random_below(&seed, 3) == 0 ? 2 : 1;
    expect_zero(state, attention_run(bench, cuts, calls, 0, &seed), case_seed,
                "written outside or rounded otherwise", text);
    attention_run_backward(bench, true);
    for (const attention_document &doc : attention_documents_of(bench))
        compare_document(fx, state, s, doc, 0, case_seed, text);
    if (gpu_random_below(&seed, 4) == 0) { /* the same cut, another placement and order */
        std::vector<attention_cut> other = cuts;
        std::reverse(other.begin(), other.end());
        expect_zero(state, attention_run(bench, other, 3 - calls, 1, &seed), case_seed,
                    "written outside or rounded otherwise", text);
        for (const attention_document &doc : attention_documents_of(bench)) {
            expect_zero(state, different(fx, s, doc, false), case_seed, "o, lse, dq placed anew",
                        text);
            expect_zero(state, different(fx, s, doc, true), case_seed, "dk, dv placed anew", text);
        }
    }
    expect_zero(state, attention_run(bench, attention_whole(bench), 1, 1, &seed), case_seed,
                "written outside or rounded otherwise", text);
    for (const attention_document &doc : attention_documents_of(bench)) {
        compare_document(fx, state, s, doc, 1, case_seed, text);
        expect_zero(state, different(fx, s, doc, false), case_seed, "o, lse, dq cut and whole",
                    text);
        state->most_keys = std::max(state->most_keys, doc.T);
        state->most_rows = std::max(state->most_rows, doc.T - doc.q_begin);
    }
    if (gpu_random_below(&seed, 4) == 0 && (s.D == 64 || s.D == 128))
        compare_mma(fx, bench, state, s, case_seed, text);
    attention_run_backward(bench, false);
    for (const attention_document &doc : attention_documents_of(bench))
        compare_exact(fx, state, s, doc, case_seed, text);
    state->cases++;
    state->tasks += static_cast<int64_t>(cuts.size());
    state->most_tasks = std::max(state->most_tasks, static_cast<int64_t>(cuts.size()));
    for (const std::pair<int64_t, int64_t> &d : documents)
        state->pairs += pairs_of(s, d);
}

void fuzz_case(gpu_fixture *fx, attention_bench *bench, fuzz_state *state, uint64_t case_seed)
{
    uint64_t seed = case_seed * 1000003;
    const attention_shape s = random_shape(&seed);
    const double limit = gpu_random_below(&seed, 25) == 0 ? 5e8 : 1.2e8;
    const uint64_t before =
        seed; /* later draws begin here again, not behind the documents: so it was in recorded runs */
    const std::vector<std::pair<int64_t, int64_t>> documents = random_documents(s, limit, &seed);
    check_documents(fx, bench, state, s, documents, false, case_seed, before);
}

/* One whole document each. On 132 processors blocks of the backward begin in groups (bwd_sm90_items.cuh) of 2 of each chain, of
 * sections of 4, 2, 2 and 1 heads, and of 3; ends are odd, and the windowed one has sections of two rounds, but no groups. */
struct long_document {
    int64_t rows;
    int heads, group, head_dim;
    int64_t window;
};
constexpr long_document LONG_DOCUMENTS[] = {{8192, 8, 2, 128, 0},     {16384, 2, 2, 128, 0},
                                            {16300, 2, 4, 64, 0},     {34001, 1, 1, 128, 0},
                                            {12345, 3, 2, 128, 9000}, {20001, 1, 7, 128, 0}};
constexpr int64_t LONG_CASES = sizeof LONG_DOCUMENTS / sizeof LONG_DOCUMENTS[0];

void long_case(gpu_fixture *fx, attention_bench *bench, fuzz_state *state, uint64_t number)
{
    const long_document &c = LONG_DOCUMENTS[number];
    const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
    check_documents(fx, bench, state, {c.heads, c.group, c.head_dim, c.window, scale, 1.0f},
                    {{c.rows, 0}}, true, number, number + 1);
}

using check_case = void (*)(gpu_fixture *, attention_bench *, fuzz_state *, uint64_t);

int check_cases(const char *name, check_case check, gpu_fixture *fx, const tr_attention_ops_t *ops,
                int64_t cases, uint64_t first_seed, FILE *json)
{
    using clock = std::chrono::steady_clock;
    const clock::time_point start = clock::now();
    attention_bench *bench = attention_bench_make(fx, ops);
    fuzz_state state;
    for (int64_t i = 0; i < cases && state.failures < 20; i++)
        check(fx, bench, &state, first_seed + static_cast<uint64_t>(i));
    attention_bench_free(bench);
    const double seconds = std::chrono::duration<double>(clock::now() - start).count();
    printf("%s: %d cases, %lld tasks (most %lld in a batch), up to %lld rows and %lld keys, %.3g "
           "(row, key) pairs, %d failures, %.1f s\n",
           name, state.cases, static_cast<long long>(state.tasks),
           static_cast<long long>(state.most_tasks), static_cast<long long>(state.most_rows),
           static_cast<long long>(state.most_keys), state.pairs, state.failures, seconds);
    if (json != nullptr)
        fprintf(json,
                "\"%s\": {\"cases\": %d, \"first_seed\": %llu, \"tasks\": %lld, \"failures\": %d, "
                "\"seconds\": %.1f",
                name, state.cases, static_cast<unsigned long long>(first_seed),
                static_cast<long long>(state.tasks), state.failures, seconds);
    for (const gate &g : state.gates) {
        printf("  %-8s worst error %.3g (seed %llu), allowed %.3g\n", g.name, g.worst,
               static_cast<unsigned long long>(g.worst_seed), g.limit);
        if (json != nullptr) fprintf(json, ", \"%s_worst\": %.4g", g.name, g.worst);
    }
    if (json != nullptr) fprintf(json, "},\n");
    fflush(stdout);
    return state.failures > 0;
}

/* ==== repeats ==== */

/* Two documents, a group of 5, odd rows, a window or none. */
void small_documents(attention_bench *bench, int D, int64_t window,
                     std::vector<attention_cut> *cuts)
{
    const attention_shape s = {2, 5, D, window, 1.0 / std::sqrt(static_cast<double>(D)), 1.0f};
    uint64_t seed = 5;
    if (!attention_documents(bench, s, {{437, 133}, {77, 0}}, 11))
        gpu_fail(__FILE__, __LINE__, "small documents", "the master memory is too small");
    *cuts = attention_random_cuts(bench, &seed);
}

int repeats(gpu_fixture *fx, const tr_attention_ops_t *ops, int64_t count, FILE *json)
{
    attention_bench *bench = attention_bench_make(fx, ops);
    int64_t wrong = 0;
    for (const int D : {64, 128})
        for (const attention_kernels kernels :
             {attention_kernels::op, attention_kernels::op_without_workspace}) {
            std::vector<attention_cut> cuts;
            uint64_t seed = 6;
            attention_choose(bench, kernels);
            small_documents(bench, D, 0, &cuts);
            wrong += attention_run(bench, cuts, 1, 0, &seed);
            for (int64_t i = 1; i < count; i++) {
                wrong += attention_run(bench, cuts, 1, 1, &seed);
                for (const attention_document &doc : attention_documents_of(bench)) {
                    const attention_shape s = {2, 5, D, 0, 0, 1.0f};
                    wrong += different(fx, s, doc, false) + different(fx, s, doc, true);
                }
            }
        }
    attention_bench_free(bench);
    printf("repeats: %lld for each head dim, with workspace and without, %lld elements differed\n",
           static_cast<long long>(count), static_cast<long long>(wrong));
    fflush(stdout);
    if (json != nullptr)
        fprintf(json, "\"repeats\": {\"count\": %lld, \"different\": %lld},\n",
                static_cast<long long>(count), static_cast<long long>(wrong));
    return wrong > 0;
}

int small(gpu_fixture *fx, const tr_attention_ops_t *ops)
{
    attention_bench *bench = attention_bench_make(fx, ops);
    attention_once(bench);
    int64_t wrong = 0;
    for (const int D : {64, 96, 128})
        for (const attention_kernels kernels :
             {attention_kernels::op, attention_kernels::op_without_workspace})
            for (const int64_t window : {int64_t{0}, int64_t{100}}) {
                std::vector<attention_cut> cuts;
                uint64_t seed = 6;
                attention_choose(bench, kernels);
                small_documents(bench, D, window, &cuts);
                wrong += attention_run(bench, cuts, 1, 0, &seed);
            }
    gpu_sync(fx);
    attention_bench_free(bench);
    printf("small: %lld places written outside\n", static_cast<long long>(wrong));
    return wrong > 0;
}

int64_t number_at(int argc, char **argv, int *i, int64_t otherwise)
{
    if (*i + 1 >= argc || argv[*i + 1][0] < '0' || argv[*i + 1][0] > '9') return otherwise;
    return strtoll(argv[++*i], nullptr, 10);
}

} // namespace

int main(int argc, char **argv)
{
    gpu_fixture fx;
    FILE *json = nullptr;
    const tr_attention_ops_t *ops = gpu_attention_ops_find("product");
    int failed = 0, sections = 0, i = 1;
    gpu_open(&fx);
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--json") == 0) {
            json = fopen(argv[i + 1], "w");
            if (json == nullptr) gpu_fail(__FILE__, __LINE__, argv[i + 1], "cannot be written");
        } else if (strcmp(argv[i], "--ops") == 0) {
            ops = gpu_attention_ops_find(argv[i + 1]);
            if (ops == nullptr) gpu_fail(__FILE__, __LINE__, argv[i + 1], "no such ops");
        } else {
            gpu_fail(__FILE__, __LINE__, argv[i], "options: --json FILE --ops NAME");
        }
    }
    printf("%s, %s\n", fx.name, ops->name);
    if (json != nullptr) fprintf(json, "{\"gpu\": \"%s\", \"ops\": \"%s\",\n", fx.name, ops->name);
    for (; i < argc; i++, sections++) {
        if (strcmp(argv[i], "fuzz") == 0) {
            const int64_t cases = number_at(argc, argv, &i, 500);
            const uint64_t seed = static_cast<uint64_t>(number_at(argc, argv, &i, 1));
            failed |= check_cases("fuzz", fuzz_case, &fx, ops, cases, seed, json);
        } else if (strcmp(argv[i], "long") == 0) {
            failed |= check_cases("long", long_case, &fx, ops, LONG_CASES, 0, json);
        } else if (strcmp(argv[i], "repeats") == 0) {
            failed |= repeats(&fx, ops, number_at(argc, argv, &i, 1000), json);
        } else if (strcmp(argv[i], "parts") == 0) {
            failed |= attention_parts(&fx) > 0;
        } else if (strcmp(argv[i], "dump") == 0 && i + 1 < argc) {
            attention_dump(&fx, ops, 2048, argv[++i]);
        } else if (strcmp(argv[i], "small") == 0) {
            failed |= small(&fx, ops);
        } else {
            gpu_fail(__FILE__, __LINE__, argv[i], "sections: fuzz long repeats parts small dump");
        }
    }
    if (sections == 0) {
        failed |= attention_parts(&fx) > 0;
        failed |= check_cases("fuzz", fuzz_case, &fx, ops, 500, 1, json);
        failed |= check_cases("long", long_case, &fx, ops, LONG_CASES, 0, json);
        failed |= repeats(&fx, ops, 1000, json);
    }
    if (json != nullptr) {
        fprintf(json, "\"failed\": %d}\n", failed);
        fclose(json);
    }
    gpu_close(&fx);
    printf("%s\n", failed ? "FAILED" : "ok");
    return failed;
}
