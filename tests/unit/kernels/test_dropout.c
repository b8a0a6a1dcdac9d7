/* The mask of dropout: its numbers, and that they follow the document, not its place. */
#include "tests/support/op_fixture.h"

#include "kernels/dropout.h"

#include <math.h>
#include <stdlib.h>

/* From a second implementation of Philox (Python's integers), which has Random123's known answers: ten
 * rounds for the key, seven for the words. */
static const struct answer {
    uint64_t seed;
    uint32_t step, layer, module;
    int64_t document;
    int32_t position;
    uint32_t block;
    uint32_t key[2], word[4];
} ANSWERS[] = {
    {0,
     0,
     0,
     0,
     0,
     0,
     0,
     {0x6916a26d, 0x1282842a},
     {0x1c72454f, 0xf29a24ad, 0x61952cdc, 0xf0d921ae}},
    {7,
     1,
     2,
     3,
     4,
     5,
     6,
     {0xb1255bac, 0xea2fe3f1},
     {0xe1235e69, 0x5439c2d7, 0x49b3c999, 0x6500d886}},
    {UINT64_C(0x123456789abcdef0),
     99999,
     79,
     6,
     INT64_C(0xfedcba987),
     131071,
     3583,
     {0x96d3ee1e, 0x41c36df5},
     {0x67c0e4a0, 0xd15915fc, 0x8b490d7a, 0x45d0f96c}},
};

static void test_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ANSWERS / sizeof ANSWERS[0]; i++) {
        const struct answer *a = &ANSWERS[i];
        const base_philox_key_t key = kern_dropout_key(a->seed, a->step, a->layer, a->module);
        const base_philox_t r = kern_dropout_words(key, a->document, a->position, a->block);

        assert_memory_equal(key.word, a->key, sizeof a->key);
        assert_memory_equal(r.word, a->word, sizeof a->word);
    }
}

static void test_threshold(void **state)
{
    (void)state;
    assert_int_equal(kern_dropout_threshold(0), 0);
    assert_int_equal(kern_dropout_threshold(0.1), 0x199a);
    assert_int_equal(kern_dropout_threshold(0.5), 0x8000);
    assert_int_equal(kern_dropout_threshold(0.9999999999999), 0xff00);
    assert_true(kern_dropout_factor(0) == 1.0);
    assert_true(kern_dropout_factor(0.5) == 2.0);
    /* What is kept times the factor is what was there: 2^16 - 0x199a of 2^16 are kept. */
    assert_true(fabs(kern_dropout_factor(0.1) * (65536 - 0x199a) - 65536) < 1e-10);
}

/* Where the text of kernels/op.h puts the numbers of columns. */
static void test_places(void **state)
{
    static const struct place {
        int64_t column;
        uint32_t block, byte;
    } places[] = {{0, 0, 0x00},     {7, 0, 0x07},      {8, 1, 0x00},   {31, 3, 0x07},
                  {32, 0, 0x08},    {39, 0, 0x0f},     {40, 1, 0x08},  {63, 3, 0x0f},
                  {64, 4, 0x00},    {4095, 255, 0x0f}, {100, 4, 0x0c}, {96, 4, 0x08},
                  {14335, 895, 15}, {14303, 895, 7}};
    const base_philox_t words = {{0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c}};

    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        assert_int_equal(kern_dropout_block(places[i].column), places[i].block);
        assert_int_equal(kern_dropout_byte(words, places[i].column), places[i].byte);
        for (uint32_t limit = 0; limit < 256; limit++)
            assert_int_equal(kern_dropout_keeps(words, limit, places[i].column),
                             places[i].byte >= limit);
    }
}

/* All 2^16 pairs of an element's byte and the byte that decides the limit: threshold of them drop. For
 * columns whose own byte is one of the four, and for others. */
static void test_probability(void **state)
{
    static const uint32_t thresholds[] = {1, 0xff, 0x100, 0x199a, 0x8000, 0xfeff, 0xff00};
    static const int64_t columns[] = {0, 3, 39};

    (void)state;
    for (size_t i = 0; i < sizeof thresholds / sizeof thresholds[0]; i++)
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
            const int word = columns[c] < 32 ? 0 : 3, byte = (int)(columns[c] % 4);
            uint32_t dropped = 0;

            for (uint32_t own = 0; own < 256; own++)
                for (uint32_t decides = 0; decides < 256; decides++) {
                    base_philox_t words = {{0x12345678, 0x9abcdef0, 0x0fedcba9, 0x87654321}};

                    words.word[word] &= ~(0xffu << 8 * byte);
                    words.word[word] |= own << 8 * byte;
                    words.word[1] &= 0xffffff;
                    words.word[1] |=
                        (decides ^ (words.word[0] ^ words.word[2] ^ words.word[3]) >> 24) << 24;
                    const uint32_t limit = kern_dropout_limit(words, thresholds[i]);

                    assert_in_range(limit, thresholds[i] >> 8, 255);
                    dropped += !kern_dropout_keeps(words, limit, columns[c]);
                }
            assert_int_equal(dropped, thresholds[i]);
        }
}

/* ==== what an op does with it: x = 1 and A = I show the mask in s ==== */

enum { K = 301, NUM_DOCUMENTS = 3, MAX_ROWS = 200 };

typedef struct stream_row {
    int64_t document; /* -1: pad */
    int32_t position;
} stream_row_t;

typedef struct mask_case {
    double dropout;
    uint64_t seed;
    uint32_t step;
    int32_t layer, module;
} mask_case_t;

static const mask_case_t START = {0.25, 11, 4, 2, 5};

/* Rows [from, to) of a document, appended. */
static int add_rows(stream_row_t *rows, int count, int64_t document, int from, int to)
{
    for (int i = from; i < to; i++)
        rows[count++] = (stream_row_t){document, i};
    return count;
}

static double *run_mask(op_fixture_t *fx, const mask_case_t *c, const stream_row_t *rows, int T)
{
    double *ones = op_doubles(T * K), *identity = op_doubles(K * K), *s = op_doubles(T * K);
    double pairs[2 * MAX_ROWS], positions[MAX_ROWS];
    kern_lora_segment_t segments[MAX_ROWS];
    const kern_lora_adapter_t adapter = {1, c->dropout, c->seed, c->step, 0};
    kern_lora_block_t block = {.module = c->module, .rank = K};
    kern_lora_route_t route = {0, 1, 1, segments, &adapter, &block, .layer = c->layer};
    op_tensor_t tx, ta, td, tp, ts = op_tensor(fx, T, K, K + 2, KERN_F32);

    for (int t = 0; t < T; t++) {
        pairs[2 * t] = (double)(int32_t)(rows[t].document & 0x7fffffff);
        pairs[2 * t + 1] = (double)(rows[t].document >> 32);
        positions[t] = rows[t].position;
        if (rows[t].document >= 0 && t > 0 && rows[t - 1].document == rows[t].document)
            segments[route.num_segments - 1].row1++;
        else if (rows[t].document >= 0)
            segments[route.num_segments++] = (kern_lora_segment_t){t, t + 1, 0, 0};
    }
    for (int i = 0; i < T * K; i++)
        ones[i] = 1;
    for (int i = 0; i < K; i++)
        identity[i * K + i] = 1;
    tx = op_tensor_from(fx, T, K, K, KERN_F32, ones);
    ta = op_tensor_from(fx, K, K, K + 1, KERN_F32, identity);
    td = op_tensor_from(fx, T, 2, 2, KERN_I32, pairs);
    tp = op_tensor_from(fx, 1, T, T, KERN_I32, positions);
    block.a = ta.mat;
    route.documents = td.mat;
    route.positions = tp.mat;
    op_run(fx, lora_s, (&(kern_lora_s_t){route, tx.mat, ts.mat}));
    op_tensor_get(&ts, s);
    op_tensor_end(&tx);
    op_tensor_end(&ta);
    op_tensor_end(&td);
    op_tensor_end(&tp);
    op_tensor_end(&ts);
    free(ones);
    free(identity);
    return s;
}

static const int64_t DOCUMENTS[NUM_DOCUMENTS] = {5, INT64_C(1) << 33, 6};

/* The same documents in another order, cut elsewhere and beside pad rows: the same bits per row. */
static void test_packing(void **state)
{
    stream_row_t one[MAX_ROWS], two[MAX_ROWS];
    int num_one = 0, num_two = 0;
    double *s_one, *s_two;

    num_one = add_rows(one, num_one, DOCUMENTS[0], 0, 70);
    num_one = add_rows(one, num_one, DOCUMENTS[1], 0, 10);
    num_one = add_rows(one, num_one, DOCUMENTS[2], 0, 67);
    num_two = add_rows(two, num_two, DOCUMENTS[2], 33, 67);
    num_two = add_rows(two, num_two, -1, 0, 3);
    num_two = add_rows(two, num_two, DOCUMENTS[1], 0, 10);
    num_two = add_rows(two, num_two, DOCUMENTS[2], 0, 33);
    num_two = add_rows(two, num_two, DOCUMENTS[0], 0, 70);
    s_one = run_mask(*state, &START, one, num_one);
    s_two = run_mask(*state, &START, two, num_two);
    for (int t = 0; t < num_one; t++) {
        int other = 0;

        while (two[other].document != one[t].document || two[other].position != one[t].position)
            other++;
        assert_memory_equal(s_one + t * K, s_two + other * K, K * sizeof(double));
        for (int j = 0; j < K; j++)
            assert_true(s_one[t * K + j] == 0 || s_one[t * K + j] == (double)(float)(1 / 0.75));
    }
    free(s_one);
    free(s_two);
}

static int64_t count_equal(const double *a, const double *b, int64_t count)
{
    int64_t equal = 0;

    for (int64_t i = 0; i < count; i++)
        equal += a[i] == b[i];
    return equal;
}

/* Each word of the key and counter matters: two masks of p = 1/4 agree in 5/8 of their elements; a
 * share of p is dropped. Limits are six standard deviations; the numbers are always the same. */
static void test_independent(void **state)
{
    enum { T = 60 };
    const double n = T * K, agree = 5.0 / 8, six = 6 * sqrt(n * agree * (1 - agree));
    stream_row_t rows[MAX_ROWS], shifted[MAX_ROWS], other[MAX_ROWS];
    mask_case_t cases[5] = {START, START, START, START, START};
    double *first, dropped = 0;

    (void)add_rows(rows, 0, 5, 0, T);
    (void)add_rows(shifted, 0, 5, 1, T + 1);
    (void)add_rows(other, 0, 5 + (INT64_C(1) << 32), 0, T);
    cases[0].seed++;
    cases[1].seed += UINT64_C(1) << 40;
    cases[2].step++;
    cases[3].layer++;
    cases[4].module++;
    first = run_mask(*state, &START, rows, T);
    for (int i = 0; i < T * K; i++)
        dropped += first[i] == 0;
    assert_true(fabs(dropped - n / 4) < 6 * sqrt(n * 3 / 16));
    for (int i = 0; i < 7; i++) {
        const mask_case_t *c = i < 5 ? &cases[i] : &START;
        double *s = run_mask(*state, c, i == 5 ? shifted : i == 6 ? other : rows, T);

        assert_true(fabs((double)count_equal(first, s, T * K) - n * agree) < six);
        free(s);
    }
    free(first);
}

/* Of any two elements of a block p^2 are dropped together, as of elements that have nothing to do
 * with each other; within six standard deviations. */
static void test_pairs(void **state)
{
    enum { BLOCKS = 40000 };
    const uint32_t threshold = kern_dropout_threshold(0.1);
    const double p = threshold / 65536.0, share = p * p;
    int both[16][16] = {{0}};

    (void)state;
    for (int i = 0; i < BLOCKS; i++) {
        const base_philox_t r =
            kern_dropout_words(kern_dropout_key(3, 1, 4, 1), 5, i / 4, (uint32_t)i % 4);
        const uint32_t limit = kern_dropout_limit(r, threshold);
        int dropped[16];

        for (int n = 0; n < 16; n++)
            dropped[n] = !kern_dropout_keeps(r, limit, n / 8 * 32 + n % 8);
        for (int n = 0; n < 16; n++)
            for (int m = 0; m <= n; m++)
                both[n][m] += dropped[n] && dropped[m];
    }
    for (int n = 0; n < 16; n++)
        for (int m = 0; m <= n; m++) {
            const double want = n == m ? p : share;
            assert_true(fabs(both[n][m] - BLOCKS * want) < 6 * sqrt(BLOCKS * want * (1 - want)));
        }
}

/* Nothing is dropped with p = 0. */
static void test_none(void **state)
{
    stream_row_t rows[4];
    mask_case_t c = START;
    double *s;

    (void)add_rows(rows, 0, 9, 0, 4);
    c.dropout = 0;
    s = run_mask(*state, &c, rows, 4);
    for (int i = 0; i < 4 * K; i++)
        assert_true(s[i] == 1);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers), cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_packing),       cmocka_unit_test(test_independent),
        cmocka_unit_test(test_places),        cmocka_unit_test(test_probability),
        cmocka_unit_test(test_pairs),         cmocka_unit_test(test_none),
    };

    return OP_FIXTURE_RUN(tests);
}
