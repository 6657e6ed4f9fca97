/* router.h - the table of all routes. 404 and 405 are told apart; HEAD is answered wherever GET is. */
#ifndef SRV_ROUTER_H
#define SRV_ROUTER_H

#include "server/request.h"

extern const srv_route srv_routes[];
extern const size_t srv_n_routes;

#define SRV_ALLOW 64
/* The route of a method and path; params get the {} segments. NULL: *ret_allow is the Allow list, or "" for 404. */
const srv_route *srv_route_find(const srv_route *table, size_t n, const char *method, const char *path,
                                char params[SRV_N_PARAMS][SRV_PARAM], char ret_allow[SRV_ALLOW]);

#endif
