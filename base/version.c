#include "base/version.h"

#include "base/version_values.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

const char *base_version_number(void)
{
    return CADRE_VERSION;
}

const char *base_version_commit(void)
{
    return CADRE_COMMIT;
}

void base_version_preset(char *text, size_t bytes)
{
    const char *const sanitize = CADRE_SANITIZE;

    (void)snprintf(text, bytes, "%s (%s%s%s)", CADRE_PRESET, CADRE_BUILD_TYPE,
                   sanitize[0] != '\0' ? ", " : "", sanitize);
}

const char *base_version_compiler(void)
{
    return CADRE_COMPILER;
}

int base_version_processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    const long online = sysconf(_SC_NPROCESSORS_ONLN); /* more than CPU_SETSIZE processors */
    return online > 0 ? (int)online : 1;
}

void base_version_cpu(char *text, size_t bytes)
{
    char line[256];
    char model[256] = "unknown model"; /* arm64 kernels print no model name */
    FILE *file = fopen("/proc/cpuinfo", "re");

    if (file != NULL) {
        while (fgets(line, sizeof line, file) != NULL) {
            const char *colon = strchr(line, ':');
            if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
                (void)snprintf(model, sizeof model, "%s", colon + 1 + strspn(colon + 1, " \t"));
                model[strcspn(model, "\n")] = '\0';
                break;
            }
        }
        (void)fclose(file);
    }
    const int count = base_version_processors();
    (void)snprintf(text, bytes, "%s, %d processor%s", model, count, count == 1 ? "" : "s");
}

const char *base_version_libyaml(void)
{
    return yaml_get_version_string();
}
