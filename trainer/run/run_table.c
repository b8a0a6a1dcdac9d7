#include "trainer/run/run_table.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define CELL_BYTES  96
#define MAX_COLUMNS 8

/* A row is made twice, for its widths and for the stream, so that nothing needs memory. */
typedef struct cells {
    char text[MAX_COLUMNS][CELL_BYTES];
} cells_t;

typedef void (*row_fn)(const void *rows, int64_t index, cells_t *cells);

typedef struct layout {
    int num_columns;
    const char *const *heads;
    unsigned left; /* bit c: column c is aligned to the left */
    row_fn row;
    const void *rows;
    int64_t num_rows;
} layout_t;

static void print_row(FILE *out, const layout_t *layout, const int *width, const cells_t *cells)
{
    char line[MAX_COLUMNS * CELL_BYTES];
    size_t length = 0;

    for (int c = 0; c < layout->num_columns; c++) {
        const bool left = (layout->left >> c & 1u) != 0;
        const int n = snprintf(line + length, sizeof line - length, left ? "%s%-*s" : "%s%*s",
                               c == 0 ? "" : "  ", width[c], cells->text[c]);

        if (n > 0) length += (size_t)n < sizeof line - length ? (size_t)n : 0;
    }
    while (length > 0 && line[length - 1] == ' ')
        length--;
    (void)fprintf(out, "%.*s\n", (int)length, line);
}

static void print_table(FILE *out, const layout_t *layout)
{
    int width[MAX_COLUMNS];
    cells_t cells;

    for (int c = 0; c < layout->num_columns; c++)
        width[c] = (int)strlen(layout->heads[c]);
    for (int64_t i = 0; i < layout->num_rows; i++) {
        memset(&cells, 0, sizeof cells);
        layout->row(layout->rows, i, &cells);
        for (int c = 0; c < layout->num_columns; c++)
            if ((int)strlen(cells.text[c]) > width[c]) width[c] = (int)strlen(cells.text[c]);
    }
    for (int c = 0; c < layout->num_columns; c++)
        (void)snprintf(cells.text[c], CELL_BYTES, "%s", layout->heads[c]);
    print_row(out, layout, width, &cells);
    for (int64_t i = 0; i < layout->num_rows; i++) {
        memset(&cells, 0, sizeof cells);
        layout->row(layout->rows, i, &cells);
        print_row(out, layout, width, &cells);
    }
}

/* "41,943,040" */
static void group(int64_t v, char text[CELL_BYTES])
{
    char digits[32];
    size_t used = 0;
    const int n = snprintf(digits, sizeof digits, "%" PRId64, v);

    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-') text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
}

/* ==== before ==== */

/* The rows and, for several, one more with their sums. */
typedef struct plans {
    const tr_run_table_plan_t *rows;
    int64_t num_rows;
    tr_run_table_plan_t sum;
    char name[CELL_BYTES];
} plans_t;

static void plan_row(const void *data, int64_t index, cells_t *cells)
{
    const plans_t *plans = data;
    const tr_run_table_plan_t *row = index < plans->num_rows ? &plans->rows[index] : &plans->sum;

    (void)snprintf(cells->text[0], CELL_BYTES, "%s", row->name);
    group(row->documents, cells->text[1]);
    group(row->supervised_tokens, cells->text[2]);
    group(row->steps, cells->text[3]);
    if (row->rank > 0) {
        group(row->rank, cells->text[4]);
        (void)snprintf(cells->text[5], CELL_BYTES, "%.4g", row->scale);
    }
    group(row->trainable_parameters, cells->text[6]);
}

void tr_run_table_plan(FILE *out, const tr_run_table_plan_t *rows, int64_t num_rows)
{
    static const char *const heads[] = {"adapter", "documents", "supervised tokens",   "steps",
                                        "rank",    "scale",     "trainable parameters"};
    plans_t plans = {.rows = rows, .num_rows = num_rows};
    const layout_t layout = {.num_columns = 7,
                             .heads = heads,
                             .left = 1u,
                             .row = plan_row,
                             .rows = &plans,
                             .num_rows = num_rows > 1 ? num_rows + 1 : num_rows};

    (void)snprintf(plans.name, sizeof plans.name, "%" PRId64 " adapters", num_rows);
    plans.sum.name = plans.name;
    for (int64_t i = 0; i < num_rows; i++) {
        plans.sum.documents += rows[i].documents;
        plans.sum.supervised_tokens += rows[i].supervised_tokens;
        plans.sum.steps += rows[i].steps;
        plans.sum.trainable_parameters += rows[i].trainable_parameters;
    }
    print_table(out, &layout);
}

/* ==== after ==== */

static void put_loss(double loss, char text[CELL_BYTES])
{
    if (isfinite(loss)) (void)snprintf(text, CELL_BYTES, "%.4f", loss);
}

/* The folder is printed behind the cells: a path may be longer than one. */
static void result_row(const void *data, int64_t index, cells_t *cells)
{
    const tr_run_table_result_t *row = (const tr_run_table_result_t *)data + index;

    (void)snprintf(cells->text[0], CELL_BYTES, "%s", row->name);
    (void)snprintf(cells->text[1], CELL_BYTES, "%" PRId64 "/%" PRId64, row->steps,
                   row->total_steps);
    put_loss(row->first_loss, cells->text[2]);
    put_loss(row->last_loss, cells->text[3]);
    put_loss(row->eval_loss, cells->text[4]);
}

/* As one word of a shell. */
static void put_word(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_-./+:@,=";

    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        (void)fputs(word, out);
        return;
    }
    (void)fputc('\'', out);
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            (void)fputs("'\\''", out);
        else
            (void)fputc(*p, out);
    }
    (void)fputc('\'', out);
}

static void put_command(FILE *out, const char *verb, const char *model, const char *adapter,
                        const char *data)
{
    (void)fprintf(out, "  cadre %s --model ", verb);
    put_word(out, model);
    if (adapter != NULL) {
        (void)fputs(" --adapter ", out);
        put_word(out, adapter);
    }
    if (data != NULL) {
        (void)fputs(" --data ", out);
        put_word(out, data);
    }
    (void)fputc('\n', out);
}

void tr_run_table_results(FILE *out, const tr_run_table_result_t *rows, int64_t num_rows,
                          const char *model, bool full, const char *data)
{
    static const char *const heads[] = {"adapter", "steps", "first loss", "last loss", "eval loss"};
    const layout_t layout = {.num_columns = 5,
                             .heads = heads,
                             .left = 1u,
                             .row = result_row,
                             .rows = rows,
                             .num_rows = num_rows};
    const char *first = NULL;

    print_table(out, &layout);
    (void)fputs(full ? "\nmodel:\n" : "\nadapters:\n", out);
    for (int64_t i = 0; i < num_rows; i++) {
        if (rows[i].folder == NULL) {
            (void)fprintf(out, "  %s: not exported\n", rows[i].name);
            continue;
        }
        (void)fprintf(out, "  %s\n", rows[i].folder);
        if (first == NULL) first = rows[i].folder;
    }
    if (first == NULL || (full && data == NULL)) return;
    (void)fputs("next:\n", out);
    if (!full) put_command(out, "verify", model, first, NULL);
    if (data != NULL) put_command(out, "score", full ? first : model, full ? NULL : first, data);
}

/* ==== the split ==== */

static int64_t whole(const tr_run_table_split_t *row)
{
    int64_t ns = 0;

    for (int p = 0; p < BASE_NUM_PARTS; p++)
        ns += row->ns[p];
    return ns;
}

static void split_row(const void *data, int64_t index, cells_t *cells)
{
    static const base_part_t columns[] = {BASE_PART_DENSE, BASE_PART_ATTENTION, BASE_PART_EXCHANGE,
                                          BASE_PART_WAITING, BASE_PART_NONE};
    const tr_run_table_split_t *row = (const tr_run_table_split_t *)data + index;
    const double ns = (double)whole(row);

    (void)snprintf(cells->text[0], CELL_BYTES, "%" PRId64, row->rank);
    (void)snprintf(cells->text[1], CELL_BYTES, "%s", row->role);
    if (row->microbatches > 0)
        (void)snprintf(cells->text[2], CELL_BYTES, "%.1f", ns * 1e-6 / (double)row->microbatches);
    for (int c = 0; c < 5 && ns > 0; c++)
        (void)snprintf(cells->text[3 + c], CELL_BYTES, "%.1f%%",
                       100.0 * (double)row->ns[columns[c]] / ns);
}

void tr_run_table_split(FILE *out, const tr_run_table_split_t *rows, int64_t num_rows)
{
    static const char *const heads[] = {"rank",      "is",       "ms a microbatch", "dense",
                                        "attention", "exchange", "waiting",         "idle"};
    const layout_t layout = {.num_columns = 8,
                             .heads = heads,
                             .left = 2u,
                             .row = split_row,
                             .rows = rows,
                             .num_rows = num_rows};

    print_table(out, &layout);
}
