/* log.h - one line an event, to stderr: "LEVEL time request-id message" or a JSON object.
 *
 * core and db return errors and log at debug only; the server logs each failure once, where it answers it. Never
 * picture bytes, tokens or users' full paths. The settings are process-wide and made once in main(). */
#ifndef DR_BASE_LOG_H
#define DR_BASE_LOG_H

#include "core/base/status.h"
#include <stdbool.h>

typedef enum dr_log_level { DR_LOG_DEBUG, DR_LOG_INFO, DR_LOG_WARN, DR_LOG_ERROR, DR_LOG_OFF } dr_log_level;

void dr_log_setup(dr_log_level min, bool json);
bool dr_log_level_parse(const char *s, dr_log_level *ret);
void dr_log(dr_log_level level, const char *request_id, const char *fmt, ...)
    DR_PRINTF(3, 4); /* request_id may be NULL */

#endif
