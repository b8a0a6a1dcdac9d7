#include "base/message.h"

#include <stddef.h>

const char *base_message_id(base_message_t msg)
{
    switch (msg) {
#define X(area, number, text, cure)                                                                \
    case BASE_MSG_##area##_##number:                                                               \
        return #area "-" #number;
        BASE_MESSAGE_MAP(X)
#undef X
    case BASE_MSG_COUNT:
        break;
    }
    return NULL;
}

const char *base_message_text(base_message_t msg)
{
    switch (msg) {
#define X(area, number, text, cure)                                                                \
    case BASE_MSG_##area##_##number:                                                               \
        return text;
        BASE_MESSAGE_MAP(X)
#undef X
    case BASE_MSG_COUNT:
        break;
    }
    return NULL;
}

const char *base_message_cure(base_message_t msg)
{
    switch (msg) {
#define X(area, number, text, cure)                                                                \
    case BASE_MSG_##area##_##number:                                                               \
        return cure;
        BASE_MESSAGE_MAP(X)
#undef X
    case BASE_MSG_COUNT:
        break;
    }
    return NULL;
}
