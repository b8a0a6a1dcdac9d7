/* How much memory this process may still take on this machine. */
#ifndef CADRE_TRAINER_RUN_MEMORY_LIMIT_H
#define CADRE_TRAINER_RUN_MEMORY_LIMIT_H

#include <stdint.h>

typedef struct tr_memory_limit {
    int64_t bytes;     /* INT64_MAX: unknown */
    const char *cause; /* "MemAvailable", "the memory limit of the cgroup"; static */
} tr_memory_limit_t;

/* The least of MemAvailable of /proc/meminfo and of what the process's control group (v2, v1) and
 * those above it have left. Unreadable files limit nothing. */
tr_memory_limit_t tr_memory_limit(void);

/* The same with `root` before every path, for tests: "" or a folder that has proc/ and sys/. */
tr_memory_limit_t tr_memory_limit_below(const char *root);

#endif
