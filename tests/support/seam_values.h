/* Numbers of a seam case: inputs by place, in the dtype of the case, and the distance of results. */
#ifndef CADRE_TESTS_SUPPORT_SEAM_VALUES_H
#define CADRE_TESTS_SUPPORT_SEAM_VALUES_H

#include "tests/support/seam_case.h"

/* In [-1, 1), a function of its place only. */
double seam_value(int tensor, int layer, int64_t document, int64_t row, int64_t column);

/* Element i of an array in the case's dtype. */
void seam_put(const seam_case_t *c, void *array, int64_t i, double value);

#endif
