/* ulid.h - identifiers that sort by time: a prefix and 26 Crockford base-32 characters (48 bits of ms, 80 random). */
#ifndef DB_ULID_H
#define DB_ULID_H

#include <stdbool.h>

#define DB_ID 32 /* bytes for an id with its NUL: "job_" + 26 */

/* Thread-safe; ids of one process strictly grow, also within a millisecond. prefix is at most 5 characters. */
void db_id_new(const char *prefix, char ret[DB_ID]);

/* prefix, then 26 characters of the alphabet in the canonical (upper) case, the first at most '7'. */
bool db_id_valid(const char *prefix, const char *id);

#endif
