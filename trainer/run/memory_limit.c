#include "trainer/run/memory_limit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void take(tr_memory_limit_t *least, int64_t bytes, const char *cause)
{
    if (bytes < 0) bytes = 0;
    if (bytes < least->bytes) *least = (tr_memory_limit_t){bytes, cause};
}

/* A file that holds one number; "max" and what cannot be read are -1. */
static int64_t read_number(const char *path)
{
    char text[64], *end = text;
    int64_t value = -1;
    FILE *f = fopen(path, "r");

    if (f == NULL) return -1;
    if (fgets(text, sizeof text, f) != NULL) value = strtoll(text, &end, 10);
    (void)fclose(f);
    return end == text ? -1 : value;
}

static void read_meminfo(const char *root, tr_memory_limit_t *least)
{
    static const char key[] = "MemAvailable:";
    char path[PATH_MAX], line[256];

    (void)snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "r");
    if (f == NULL) return;
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, sizeof key - 1) == 0)
            take(least, strtoll(line + sizeof key - 1, NULL, 10) * 1024,
                 "MemAvailable of /proc/meminfo");
    }
    (void)fclose(f);
}

typedef struct group_files {
    const char *mount, *limit, *used;
} group_files_t;

/* The group and all above it, up to the mount. */
static void read_groups(const char *root, const group_files_t *files, const char *group,
                        tr_memory_limit_t *least)
{
    char name[1024], path[PATH_MAX];

    (void)snprintf(name, sizeof name, "%s", group);
    for (;;) {
        (void)snprintf(path, sizeof path, "%s%s%s/%s", root, files->mount, name, files->limit);
        const int64_t limit = read_number(path);
        (void)snprintf(path, sizeof path, "%s%s%s/%s", root, files->mount, name, files->used);
        const int64_t used = read_number(path);
        if (limit >= 0 && used >= 0) take(least, limit - used, "the memory limit of the cgroup");
        char *slash = strrchr(name, '/');
        if (slash == NULL) return;
        *slash = '\0';
    }
}

/* Lines "0::/a/b" (v2) and "5:memory:/a/b" (v1). In a container the paths may be those outside of
 * it; then only the mount itself is found, which is the container's own group. */
static void read_cgroup(const char *root, tr_memory_limit_t *least)
{
    static const group_files_t v2 = {"/sys/fs/cgroup", "memory.max", "memory.current"};
    static const group_files_t v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                     "memory.usage_in_bytes"};
    char path[PATH_MAX], line[1024];

    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    if (f == NULL) return;
    while (fgets(line, sizeof line, f) != NULL) {
        char *first = strchr(line, ':'), *second = first != NULL ? strchr(first + 1, ':') : NULL;

        if (second == NULL) continue;
        line[strcspn(line, "\n")] = '\0';
        *second = '\0';
        const char *group = strcmp(second + 1, "/") == 0 ? "" : second + 1;
        if (first[1] == '\0')
            read_groups(root, &v2, group, least);
        else if (strcmp(first + 1, "memory") == 0)
            read_groups(root, &v1, group, least);
    }
    (void)fclose(f);
}

tr_memory_limit_t tr_memory_limit_below(const char *root)
{
    tr_memory_limit_t least = {INT64_MAX, "nothing"};

    read_meminfo(root, &least);
    read_cgroup(root, &least);
    return least;
}

tr_memory_limit_t tr_memory_limit(void)
{
    return tr_memory_limit_below("");
}
