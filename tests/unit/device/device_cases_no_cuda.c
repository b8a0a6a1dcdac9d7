/* In place of device_cases_cuda.c in builds without CUDA. */
#include "tests/unit/device/device_cases.h"

const device_case_t device_cases_cuda[] = {
    {NULL, 0, NULL},
};
