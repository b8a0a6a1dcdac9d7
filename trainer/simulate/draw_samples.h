/* Sample lengths of the setting that LoRAFusion was evaluated in: documents with their summaries,
 * log-normal, cut at 4,096 tokens. Its length files are not public; median and deviation of each
 * dataset are. */
#ifndef CADRE_TRAINER_SIMULATE_DRAW_SAMPLES_H
#define CADRE_TRAINER_SIMULATE_DRAW_SAMPLES_H

#include <stdint.h>

typedef enum tr_samples {
    TR_SAMPLES_XSUM,    /* median 460, sigma 0.5 */
    TR_SAMPLES_CNN,     /* 860, 0.5 */
    TR_SAMPLES_WIKISUM, /* 1500, 0.6 */
    TR_SAMPLES_MIX,     /* a third each */
    TR_SAMPLES_HET,     /* adapter a draws from the a-th of the above */
    TR_NUM_SAMPLES
} tr_samples_t;

#define TR_SAMPLES_LONGEST 4096

const char *tr_samples_name(tr_samples_t samples); /* "xsum" */

/* Rows of sample `index` of the adapter. The same on one libm only (logarithm and exponential). */
int64_t tr_draw_sample(tr_samples_t samples, uint64_t seed, int32_t adapter, uint32_t index);

#endif
