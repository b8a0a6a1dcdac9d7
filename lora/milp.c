#include "lora/milp.h"

#include "base/memory.h"

#include <coin/Cbc_C_Interface.h>
#include <stdio.h>

struct lora_milp {
    base_ctx_t *ctx;
    Cbc_Model *model;
    int32_t num_columns, num_rows;
    const double *solution;
};

base_status_t lora_milp_create(base_ctx_t *ctx, lora_milp_t **milp_p)
{
    lora_milp_t *milp = base_calloc(ctx, 1, sizeof *milp, "solver");

    if (milp == NULL) return BASE_ERR_NOMEM;
    milp->ctx = ctx;
    milp->model = Cbc_newModel();
    if (milp->model == NULL) {
        base_free(ctx, milp);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "solver: CBC made no model");
    }
    Cbc_setLogLevel(milp->model, 0);
    Cbc_setParameter(milp->model, "log", "0");
    Cbc_setParameter(milp->model, "slog", "0");
    *milp_p = milp;
    return BASE_OK;
}

void lora_milp_destroy(lora_milp_t *milp)
{
    if (milp == NULL) return;
    Cbc_deleteModel(milp->model);
    base_free(milp->ctx, milp);
}

int32_t lora_milp_column(lora_milp_t *milp, double low, double high, double cost, int integer)
{
    char name[16];

    (void)snprintf(name, sizeof name, "c%d", (int)milp->num_columns);
    Cbc_addCol(milp->model, name, low, high, cost, (char)(integer != 0), 0, NULL, NULL);
    return milp->num_columns++;
}

void lora_milp_row(lora_milp_t *milp, char sense, int32_t num, const int32_t *columns,
                   const double *factors, double right)
{
    char name[16];

    (void)snprintf(name, sizeof name, "r%d", (int)milp->num_rows++);
    Cbc_addRow(milp->model, name, num, columns, factors,
               sense == '<' ? 'L' : (sense == '>' ? 'G' : 'E'), right);
}

static base_status_t set_start(lora_milp_t *milp, const double *start)
{
    int *columns = base_calloc(milp->ctx, milp->num_columns, sizeof *columns, "solver");

    if (columns == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < milp->num_columns; i++)
        columns[i] = i;
    Cbc_setMIPStartI(milp->model, milp->num_columns, columns, start);
    base_free(milp->ctx, columns);
    return BASE_OK;
}

base_status_t lora_milp_solve(lora_milp_t *milp, const lora_milp_options_t *options,
                              lora_milp_result_t *result)
{
    if (options->start != NULL) BASE_TRY(set_start(milp, options->start));
    if (options->seconds > 0) Cbc_setMaximumSeconds(milp->model, options->seconds);
    if (options->nodes > 0) Cbc_setMaximumNodes(milp->model, options->nodes);
    if (options->gap > 0) Cbc_setAllowableFractionGap(milp->model, options->gap);
    (void)Cbc_solve(milp->model);
    milp->solution =
        Cbc_numberSavedSolutions(milp->model) > 0 ? Cbc_bestSolution(milp->model) : NULL;
    if (milp->solution == NULL && Cbc_isProvenOptimal(milp->model))
        milp->solution = Cbc_getColSolution(milp->model);
    *result = (lora_milp_result_t){
        .found = milp->solution != NULL,
        .proven = Cbc_isProvenOptimal(milp->model) || Cbc_isProvenInfeasible(milp->model),
        .value = Cbc_getObjValue(milp->model),
        .bound = Cbc_getBestPossibleObjValue(milp->model),
    };
    return BASE_OK;
}

double lora_milp_value(const lora_milp_t *milp, int32_t column)
{
    return milp->solution[column];
}
