/* test_router.c - paths, captures, 404 against 405, HEAD; and that the table itself is sound. */
#include "server/router.h"
#include "tests/t.h"

static char params[SRV_N_PARAMS][SRV_PARAM], allow[SRV_ALLOW];

static const srv_route *find(const char *method, const char *path) {
    return srv_route_find(srv_routes, srv_n_routes, method, path, params, allow);
}

TEST(routes_are_found_with_their_parameters) {
    CHECK(find("GET", "/v1/jobs/job_1/result") && !strcmp(params[0], "job_1"));
    CHECK(find("GET", "/v1/models/derain/versions/12") && !strcmp(params[0], "derain") && !strcmp(params[1], "12"));
    CHECK(find("GET", "/") && find("POST", "/v1/derain") && find("GET", "/v1/jobs"));
    CHECK(find("HEAD", "/v1/jobs") == find("GET", "/v1/jobs"));
}

TEST(unknown_paths_are_404) {
    char long_path[SRV_PARAM + 16] = "/v1/jobs/";
    memset(long_path + 9, 'a', SRV_PARAM);
    const char *const paths[] = {
        "",   "/v1",      "/v1/",   "/v1/jobs/", "/v1/jobs//result", "/v1/jobs/a/b", "/v1/jobs/a/result/",
        "//", "/V1/jobs", long_path};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        CHECK_MSG(!find("GET", paths[i]) && !*allow, "%s", paths[i]);
}

TEST(known_paths_with_another_method_say_which_they_have) {
    CHECK(!find("PUT", "/v1/jobs/x") && !strcmp(allow, "GET, HEAD, DELETE"));
    CHECK(!find("GET", "/v1/derain") && !strcmp(allow, "POST"));
    CHECK(!find("HEAD", "/v1/derain") && !strcmp(allow, "POST"));
    CHECK(!find("get", "/v1/jobs") && !strcmp(allow, "GET, HEAD, POST"));
}

TEST(the_table_is_complete_and_without_doubles) {
    for (size_t i = 0; i < srv_n_routes; i++) {
        CHECK(srv_routes[i].ready && srv_routes[i].summary && srv_routes[i].path[0] == '/');
        for (size_t j = i + 1; j < srv_n_routes; j++)
            CHECK(strcmp(srv_routes[i].path, srv_routes[j].path) || strcmp(srv_routes[i].method, srv_routes[j].method));
    }
}
