/* version.c - the one place that holds the version. The Makefile passes the commit and rebuilds this file when it
 * changes. */
#include "server/version.h"

#ifndef DR_COMMIT
#define DR_COMMIT "unknown"
#endif

const char *srv_version(void) {
    return "0.1.0";
}
const char *srv_commit(void) {
    return DR_COMMIT;
}
