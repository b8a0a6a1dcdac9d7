#include "tests/unit/trainer/run_fixture.h"

#include "trainer/run/run_table.h"

#include <math.h>

static void expect_written(FILE *out, const char *want)
{
    char text[4096] = "";

    rewind(out);
    text[fread(text, 1, sizeof text - 1, out)] = '\0';
    assert_string_equal(text, want);
    assert_int_equal(fclose(out), 0);
}

static FILE *stream(void)
{
    FILE *out = tmpfile();

    assert_non_null(out);
    return out;
}

/* The parameters are those of Llama-3.1-8B on all seven linear layers. */
static void plan(void **state)
{
    static const tr_run_table_plan_t rows[] = {
        {"legal", 12000, 4812331, 750, 16, 2.0, 41943040},
        {"code", 999, 1100, 1882, 32, 0.5, 83886080},
    };
    FILE *out = stream();

    (void)state;
    tr_run_table_plan(out, rows, 2);
    expect_written(
        out,
        "adapter     documents  supervised tokens  steps  rank  scale  trainable parameters\n"
        "legal          12,000          4,812,331    750    16      2            41,943,040\n"
        "code              999              1,100  1,882    32    0.5            83,886,080\n"
        "2 adapters     12,999          4,813,431  2,632                        125,829,120\n");
}

static void plan_of_a_model(void **state)
{
    static const tr_run_table_plan_t row = {"model", 12, 100, 3, 0, 0, 618880};
    FILE *out = stream();

    (void)state;
    tr_run_table_plan(out, &row, 1);
    expect_written(
        out, "adapter  documents  supervised tokens  steps  rank  scale  trainable parameters\n"
             "model           12                100      3                            618,880\n");
}

static void results(void **state)
{
    const tr_run_table_result_t rows[] = {
        {"legal", 740, 750, 2.10214, 1.44, 1.5, "runs/it's new/adapters/legal"},
        {"code", 0, 100, (double)NAN, (double)NAN, (double)NAN, NULL},
    };
    FILE *out = stream();

    (void)state;
    tr_run_table_results(out, rows, 2, "models/L", false, "legal eval.h5");
    expect_written(out,
                   "adapter    steps  first loss  last loss  eval loss\n"
                   "legal    740/750      2.1021     1.4400     1.5000\n"
                   "code       0/100\n"
                   "\nadapters:\n"
                   "  runs/it's new/adapters/legal\n"
                   "  code: not exported\n"
                   "next:\n"
                   "  cadre verify --model models/L --adapter 'runs/it'\\''s new/adapters/legal'\n"
                   "  cadre score --model models/L --adapter 'runs/it'\\''s new/adapters/legal' "
                   "--data 'legal eval.h5'\n");
}

static void results_of_a_model(void **state)
{
    const tr_run_table_result_t row = {"model", 3, 3, 5.5, 2.25, (double)NAN, "runs/a/model"};
    FILE *out = stream();

    (void)state;
    tr_run_table_results(out, &row, 1, "start", true, "x.h5");
    expect_written(out, "adapter  steps  first loss  last loss  eval loss\n"
                        "model      3/3      5.5000     2.2500\n"
                        "\nmodel:\n"
                        "  runs/a/model\n"
                        "next:\n"
                        "  cadre score --model runs/a/model --data x.h5\n");
}

static void split_of_the_time(void **state)
{
    const tr_run_table_split_t rows[] = {
        {.rank = 0,
         .role = "trainer 0",
         .microbatches = 4,
         .ns = {[BASE_PART_NONE] = 100000000,
                [BASE_PART_DENSE] = 600000000,
                [BASE_PART_ATTENTION] = 200000000,
                [BASE_PART_EXCHANGE] = 1000000,
                [BASE_PART_WAITING] = 99000000}},
        {.rank = 11, .role = "server 0"},
    };
    FILE *out = stream();

    (void)state;
    tr_run_table_split(out, rows, 2);
    expect_written(out,
                   "rank  is         ms a microbatch  dense  attention  exchange  waiting   idle\n"
                   "   0  trainer 0            250.0  60.0%      20.0%      0.1%     9.9%  10.0%\n"
                   "  11  server 0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan),
        cmocka_unit_test(plan_of_a_model),
        cmocka_unit_test(results),
        cmocka_unit_test(results_of_a_model),
        cmocka_unit_test(split_of_the_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
