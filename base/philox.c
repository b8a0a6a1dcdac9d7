#include "base/philox.h"

#include <math.h>

#define TWO_PI 6.283185307179586476925

void base_philox_normal2(base_philox_t r, double normal[2])
{
    /* 1 - u lies in (0, 1], so the logarithm is finite: at most sqrt(2 * 53 * ln 2) = 8.6 comes
     * out. */
    const double u = 1.0 - base_philox_double(r.word[0], r.word[1]);
    const double angle = TWO_PI * base_philox_double(r.word[2], r.word[3]);
    const double radius = sqrt(-2.0 * log(u));

    normal[0] = radius * cos(angle);
    normal[1] = radius * sin(angle);
}
