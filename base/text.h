/* Questions about strings. */
#ifndef CADRE_BASE_TEXT_H
#define CADRE_BASE_TEXT_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether `text` is something and then `end`: "a.h5" ends in ".h5", ".h5" does not. */
bool base_text_ends_in(const char *text, const char *end);

#ifdef __cplusplus
}
#endif
#endif
