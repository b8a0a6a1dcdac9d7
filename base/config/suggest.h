/* Suggest: the nearest legal word to a mistyped one, and answers to keys of other tools.
 *
 * Used for configuration keys, enum words, adapter names and the words of the command line:
 *
 *     const char *near = base_suggest_nearest("trian", verbs, num_verbs);    "train"
 *     const char *answer = base_suggest_foreign("lora_r");                   "the rank is written
 * rank ..."
 *
 * Nothing is allocated; everything returned is borrowed from the arguments or static. Thread-safe.
 */
#ifndef CADRE_BASE_CONFIG_SUGGEST_H
#define CADRE_BASE_CONFIG_SUGGEST_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The candidate nearest to `word`, or NULL when nothing is near. Distance counts one for a letter
 * inserted, removed, replaced, or swapped with its neighbour; letters of either case and '-' and
 * '_' are the same. Near is at most a third of the word's length and at least one; failing that,
 * the first candidate that begins with `word` (three letters or more). Ties go to the earlier
 * candidate. NULL candidates are skipped; words above 63 letters have no neighbour. */
const char *base_suggest_nearest(const char *word, const char *const *candidates, size_t count);

/* What to write instead of a key of another tool: one sentence in Cadre's words, or NULL when it is
 * not known. The key itself is not repeated. */
const char *base_suggest_foreign(const char *word);

/* The table behind base_suggest_foreign, for docs and tests: word number `index`, NULL past the
 * end. */
const char *base_suggest_foreign_word(size_t index);

#ifdef __cplusplus
}
#endif
#endif
