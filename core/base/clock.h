/* clock.h - monotonic nanoseconds for durations, wall-clock milliseconds for people. */
#ifndef DR_BASE_CLOCK_H
#define DR_BASE_CLOCK_H

#include <stdint.h>

#define DR_RFC3339 25 /* "2026-01-31T23:59:59.123Z" and NUL */

int64_t dr_clock_ns(void);      /* monotonic */
int64_t dr_clock_wall_ms(void); /* since 1970, UTC */
void dr_clock_rfc3339(int64_t wall_ms, char ret[DR_RFC3339]);

#endif
