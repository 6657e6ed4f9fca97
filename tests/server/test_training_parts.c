/* test_training_parts.c - parameters and their defaults, the signs of trouble, the drawn curves. */
#include "core/base/alloc.h"
#include "server/curves.h"
#include "server/training_params.h"
#include "server/training_watch.h"
#include "tests/t.h"
#include <math.h>

static bool read_text(const char *text, srv_training_params *p, srv_problem *why) {
    json_t *o = json_loads(text, 0, NULL);
    bool ok = o && srv_training_params_read(o, p, why);
    json_decref(o);
    return ok;
}

TEST(what_is_stored_reads_back_as_it_was) {
    srv_training_params p, q;
    srv_problem why;
    CHECK(read_text("{\"dataset\":\"ds_1\",\"lr\":0.5,\"steps\":70,\"w_idt\":0,\"w_color\":1.5,\"w_freq\":0.25,"
                    "\"gate\":{\"make_default\":true}}",
                    &p, &why));
    srv_training_params_fill(&p, true, 3);
    CHECK(p.steps == 70 && p.threads == 3 && p.eval_every == 7 && p.sample_every == 3 && p.metric_every == 1);
    CHECK(!strcmp(p.preset, "product") && p.seed == 1 && p.warmup == -1 && p.lr == 0.5 && p.w_idt == 0 && p.w_gan < 0);
    json_t *o = srv_training_params_json(&p);
    CHECK(o && srv_training_params_read(o, &q, &why));
    json_t *again = srv_training_params_json(&q);
    CHECK(again && json_equal(o, again));
    dr_train_opts t;
    dr_train_opts_init(&t);
    srv_training_params_apply(&q, &t);
    CHECK(t.steps == 70 && t.lr == 0.5 && t.w_idt == 0 && t.w_color == 1.5 && t.w_freq == 0.25 && t.w_gan < 0 &&
          t.crop == -1 && t.threads == 3);
    srv_training_params_done(&p);
    srv_training_params_done(&q);
    json_decref(o);
    json_decref(again);
}

TEST(defaults_follow_the_parent) {
    srv_training_params p;
    srv_problem why;
    CHECK(read_text("{\"dataset\":\"ds_1\"}", &p, &why));
    srv_training_params_fill(&p, true, 2);
    CHECK(p.steps == 2000 && srv_training_warmup(&p) == 200);
    CHECK(p.lr == 1e-4 && p.w_color == 1 && p.early_stop == 5); /* gently, and not longer than it helps */
    CHECK(read_text("{\"dataset\":\"ds_1\",\"lr\":3e-4,\"w_color\":0,\"early_stop\":0}", &p, &why));
    srv_training_params_fill(&p, true, 2);
    CHECK(p.lr == 3e-4 && p.w_color == 0 && p.early_stop == 0);
    CHECK(read_text("{\"dataset\":\"ds_1\",\"parent\":\"none\",\"preset\":\"released\"}", &p, &why));
    srv_training_params_fill(&p, false, 2);
    CHECK(p.steps == 200000 && p.metric_every == 100 && srv_training_warmup(&p) == 500);
    CHECK(p.lr < 0 && p.early_stop == 0);
    CHECK(read_text("{\"dataset\":\"ds_1\",\"parent\":\"none\",\"preset\":\"full\"}", &p, &why));
    srv_training_params_fill(&p, false, 2);
    CHECK(p.steps == 200000 && p.w_color < 0 && p.w_freq < 0); /* the preset's */
}

TEST(each_wrong_member_is_named) {
    static const struct {
        const char *text, *pointer;
    } bad[] = {{"{}", "/dataset"},
               {"{\"dataset\":7}", "/dataset"},
               {"{\"dataset\":\"ds_1\",\"steps\":-1}", "/steps"},
               {"{\"dataset\":\"ds_1\",\"steps\":\"9\"}", "/steps"},
               {"{\"dataset\":\"ds_1\",\"lr\":2}", "/lr"},
               {"{\"dataset\":\"ds_1\",\"w_freq\":-1}", "/w_freq"},
               {"{\"dataset\":\"ds_1\",\"preset\":\"fully\"}", "/preset"},
               {"{\"dataset\":\"ds_1\",\"preset\":\"full|product\"}", "/preset"},
               {"{\"dataset\":\"ds_1\",\"ngf\":20}", "/ngf"},
               {"{\"dataset\":\"ds_1\",\"parent\":\"derain\",\"ngf\":32}", "/ngf"},
               {"{\"dataset\":\"ds_1\",\"dataset_\":1}", "/dataset_"},
               {"{\"dataset\":\"ds_1\",\"gate\":[]}", "/gate"},
               {"{\"dataset\":\"ds_1\",\"gate\":{\"psnr_drop_max\":\"x\"}}", "/gate"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        srv_training_params p;
        srv_problem why = {0};
        CHECK_MSG(!read_text(bad[i].text, &p, &why) && !strcmp(why.pointer, bad[i].pointer), "%s: %s", bad[i].text,
                  why.pointer);
    }
}

/* Feeds n steps of these losses; the code that was told, "" = none. */
static const char *feed(srv_training_watch *w, int64_t from, int n, double nce, double d_real, double d_fake) {
    static char text[400];
    const char *code = "", *told = "";
    for (int i = 0; i < n; i++) {
        dr_train_metrics m = {.step = from + i,
                              .n = 6,
                              .name = {"nce_1", "nce_2", "d_A_real", "d_A_fake", "d_B_real", "d_B_fake"},
                              .value = {nce, nce, d_real, d_fake, d_real, d_fake}};
        if (srv_training_watch_step(w, &m, &code, text)) told = code;
    }
    return told;
}

TEST(signs_of_trouble_are_told_once_and_only_when_they_last) {
    srv_training_watch w = {0};
    CHECK(!*feed(&w, 1, 1000, 3.0, 0.8, 0.7)); /* as it should be */
    w = (srv_training_watch){0};
    CHECK(!*feed(&w, 1, 150, 5.545, 0.8, 0.7)); /* in the beginning it has to guess */
    CHECK(!*feed(&w, 151, 500, 4.0, 0.8, 0.7));
    CHECK(!strcmp(feed(&w, 651, 2000, 5.545, 0.8, 0.7), "contrastive_stuck"));
    CHECK(!*feed(&w, 3000, 500, 5.545, 0.8, 0.7));
    w = (srv_training_watch){0};
    CHECK(!strcmp(feed(&w, 1, 300, 3.0, 0.001, 0.002), "discriminator_saturated"));
    w = (srv_training_watch){0};
    CHECK(!*feed(&w, 1, 300, 3.0, 0.001, 0.5)); /* only one side is sure */
    w = (srv_training_watch){0};
    CHECK(!strcmp(feed(&w, 1, 500, 3.0, 1.001, 0.999), "discriminator_blind"));
    w = (srv_training_watch){0};
    const char *code = "";
    char text[400] = "";
    CHECK(!srv_training_watch_spread(&w, 0.9, 5, &code, text) && !srv_training_watch_spread(&w, -1, 5, &code, text));
    CHECK(srv_training_watch_spread(&w, 0.02, 7, &code, text) && !strcmp(code, "output_flat") &&
          strstr(text, "step 7"));
    CHECK(!srv_training_watch_spread(&w, 0.02, 8, &code, text));
}

TEST(curves_are_drawn_thinned_and_escaped) {
    static db_metric rows[3000];
    dr_buf b;
    for (int i = 0; i < 3000; i++) {
        char json[96];
        snprintf(json, sizeof json, "{\"step\":%d,\"nce_1\":%.3f,\"a<b\":%d}", i + 1, 5.0 / (i + 1), i == 5);
        rows[i] = (db_metric){.step = i + 1, .data_json = dr_strdup(json)};
    }
    const db_metric_page page = {rows, 3000};
    dr_buf_init(&b, 1 << 20);
    srv_curves_svg(&page, "job & more", &b);
    CHECK(!b.status && strstr(b.data, "job &amp; more") && strstr(b.data, "nce_1") && strstr(b.data, "a&lt;b"));
    CHECK_MSG(b.len < 60000, "%zu bytes", b.len);
    CHECK(strstr(b.data, "class=\"raw\"")); /* and over it what it tends to */
    CHECK(!strstr(b.data, "nan") && !strstr(b.data, "inf"));
    dr_buf_clear(&b);
    srv_curves_svg(&(db_metric_page){rows, 1}, "one", &b); /* one point, no range */
    CHECK(!b.status && strstr(b.data, "<polyline points") && !strstr(b.data, "nan") && !strstr(b.data, "class="));
    dr_buf_clear(&b);
    srv_curves_svg(&(db_metric_page){0}, "none", &b);
    CHECK(!b.status && strstr(b.data, "no steps yet"));
    dr_buf_done(&b);
    for (int i = 0; i < 3000; i++) dr_free(rows[i].data_json);
}
