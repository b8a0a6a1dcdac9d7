#include "kernels/cases/op_cases.h"

#define COUNT(table) ((int)(sizeof(table) / sizeof(table)[0]))

const kern_case_gemm_t kern_cases_gemm[] = {
    {1, 1, 1, 0, 0, 0, 0, 1},     {3, 5, 7, 0, 0, 0, 0, 2},  {3, 5, 7, 2, 0, 1, 0, 3},
    {13, 17, 129, 3, 1, 0, 1, 4}, {9, 2, 31, 1, 1, 1, 1, 5}, {4, 3, 0, 1, 0, 0, 0, 6},
    {65, 130, 33, 5, 0, 1, 0, 7},
};
const int num_kern_cases_gemm = COUNT(kern_cases_gemm);

const kern_case_rows_t kern_cases_rows[] = {
    {1, 2, 0, 11},
    {3, 7, 0, 12},
    {5, 64, 3, 13},
    {17, 130, 6, 14},
};
const int num_kern_cases_rows = COUNT(kern_cases_rows);

const kern_case_rope_t kern_cases_rope[] = {
    {1, 0, 0, 1, 1, 2, 21},
    {5, 3, 2, 4, 2, 6, 22},
    {9, 1, 1, 6, 2, 16, 23},
};
const int num_kern_cases_rope = COUNT(kern_cases_rope);

const kern_case_loss_t kern_cases_loss[] = {
    {4, 3, 5, 7, 8, 0, 31},
    {9, 9, 6, 33, 4, 2, 32},
    {21, 13, 17, 50, 5, 1, 33},
    {3, 0, 4, 5, 2, 0, 34},
};
const int num_kern_cases_loss = COUNT(kern_cases_loss);

const kern_case_attention_t kern_cases_attention[] = {
    {1, 0, 1, 1, 4, 41},      {7, 0, 2, 2, 3, 42},      {150, 0, 2, 1, 8, 43},
    {300, 0, 2, 4, 16, 44},   {300, 1, 1, 2, 8, 45},    {290, 5, 2, 2, 8, 46},
    {517, 128, 2, 2, 12, 47}, {640, 200, 3, 1, 16, 48}, {389, 1000, 1, 2, 256, 49},
};
const int num_kern_cases_attention = COUNT(kern_cases_attention);

/* One of everything; three adapters with pad rows, an empty segment and two segments of one
 * adapter, without and with dropout; more rows and columns than a tile of the CPU has. */
const kern_case_lora_t kern_cases_lora[] = {
    {1, {1}, {0}, 1, 1, 1, {1}, {1}, {0}, 0, 51},
    {6, {5, 2, 7, 0, 4, 1}, {0, -1, 1, 2, 0, -1}, 13, 3, 3, {6, 3, 5}, {1, 3, 4}, {0}, 3, 52},
    {6,
     {3, 4, 0, 6, 2, 5},
     {2, 0, 1, 1, -1, 2},
     14,
     2,
     3,
     {5, 4},
     {2, 1, 5},
     {0.25, 0, 0.5},
     1,
     53},
    {4, {70, 3, 131, 9}, {1, -1, 0, 1}, 519, 2, 2, {33, 20}, {16, 5}, {0.1, 0.25}, 2, 54},
    {3, {0, 67, 66}, {0, 1, 0}, 300, 1, 2, {40}, {7, 8}, {0}, 5, 55},
};
const int num_kern_cases_lora = COUNT(kern_cases_lora);
