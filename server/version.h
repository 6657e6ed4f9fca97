/* version.h - what this program is: its version and the commit that it was built from. */
#ifndef SRV_VERSION_H
#define SRV_VERSION_H

const char *srv_version(void); /* "0.1.0" */
const char *srv_commit(void);  /* "1d9b35901234", or "unknown" outside a repository */

#endif
