/* Command line of the property tests: --device cpu|strict, --first N, --seeds N, --threads N (so many
 * trainers; else the seed says, 1 to 4), --dtype bf16 (else the seed says, fp32 or fp64). Anything else ends the program with status 2.
 * With CADRE_PROPERTY_SEEDS in the environment there are at most so many seeds, for runs under sanitizers. */
#ifndef CADRE_TESTS_SUPPORT_PROPERTY_OPTIONS_H
#define CADRE_TESTS_SUPPORT_PROPERTY_OPTIONS_H

#include "base/device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct property_options {
    base_device_kind_t device;
    uint64_t first, count;
    int32_t threads;
    int bf16;
} property_options_t;

static inline property_options_t property_options(int argc, char **argv)
{
    property_options_t o = {.device = BASE_DEVICE_CPU, .first = 1, .count = 20};
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--device") == 0 &&
            (strcmp(value, "cpu") == 0 || strcmp(value, "strict") == 0))
            o.device = strcmp(value, "strict") == 0 ? BASE_DEVICE_STRICT : BASE_DEVICE_CPU;
        else if (strcmp(argv[i], "--first") == 0)
            o.first = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--seeds") == 0)
            o.count = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--threads") == 0)
            o.threads = (int32_t)strtol(value, NULL, 10);
        else if (strcmp(argv[i], "--dtype") == 0 && strcmp(value, "bf16") == 0)
            o.bf16 = 1;
        else {
            (void)fprintf(stderr, "%s: not understood: %s %s\n", argv[0], argv[i], value);
            exit(2);
        }
    }
    const char *seeds = getenv("CADRE_PROPERTY_SEEDS");
    const uint64_t most = seeds != NULL ? strtoull(seeds, NULL, 10) : o.count;
    if (most < o.count) o.count = most;
    return o;
}

#endif
