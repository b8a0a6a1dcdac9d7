#include "base/status.h"

const char *base_status_name(base_status_t st)
{
    switch (st) {
#define X(name, value, text)                                                                       \
    case BASE_##name:                                                                              \
        return "BASE_" #name;
        BASE_STATUS_MAP(X)
#undef X
    }
    return "unknown";
}

const char *base_status_text(base_status_t st)
{
    switch (st) {
#define X(name, value, text)                                                                       \
    case BASE_##name:                                                                              \
        return text;
        BASE_STATUS_MAP(X)
#undef X
    }
    return "unknown";
}

base_scope_t base_status_scope(base_status_t st)
{
    const int value = (int)st;

    /* The families are the tens of the list in status.h. */
    if (value <= -60) return BASE_SCOPE_PROCESS;
    if (value <= -40) return BASE_SCOPE_GROUP;
    if (value <= -20) return BASE_SCOPE_PEER;
    return BASE_SCOPE_CALL;
}
