/* version.c - the client's version and commit; the Makefile passes the commit and rebuilds this file when it changes.
 */
#include "client/cli.h"

#ifndef DR_COMMIT
#define DR_COMMIT "unknown"
#endif

const char *cli_version(void) {
    return "0.1.0";
}
const char *cli_commit(void) {
    return DR_COMMIT;
}
