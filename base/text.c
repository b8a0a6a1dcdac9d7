#include "base/text.h"

#include <string.h>

bool base_text_ends_in(const char *text, const char *end)
{
    const size_t bytes = strlen(text), end_bytes = strlen(end);

    return bytes > end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}
