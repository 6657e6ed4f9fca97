/* test_checkpoint.c - files out of a checkpoint without a trainer: the bytes that the trainer would have written, and
 * nothing out of what is no whole checkpoint. */
#include "tests/t.h"
#include "core/trainer.h"
#include "tests/core/train_fixture.h"

static fixture fx;
static const char *rainy[1], *clean[1];
static char rainy_dir[600], clean_dir[600], ckpt[600], gen[600], all[600], gen2[600], all2[600];

static bool begin(void) {
    if (!fixture_init(&fx) || !fixture_mkdir(&fx, "rainy") || !fixture_mkdir(&fx, "clean")) return false;
    snprintf(rainy_dir, sizeof rainy_dir, "%s/rainy", fx.dir);
    snprintf(clean_dir, sizeof clean_dir, "%s/clean", fx.dir);
    rainy[0] = rainy_dir;
    clean[0] = clean_dir;
    snprintf(ckpt, sizeof ckpt, "%s/c.safetensors", fx.dir);
    snprintf(gen, sizeof gen, "%s/g.safetensors", fx.dir);
    snprintf(all, sizeof all, "%s/t.safetensors", fx.dir);
    snprintf(gen2, sizeof gen2, "%s/g2.safetensors", fx.dir);
    snprintf(all2, sizeof all2, "%s/t2.safetensors", fx.dir);
    return fixture_picture(&fx, "rainy/1.png", 80, 72, 3, 1) && fixture_picture(&fx, "clean/1.png", 80, 72, 3, 2) &&
           fixture_picture(&fx, "clean/2.png", 72, 80, 3, 3);
}

static dr_train_opts small(const char *preset) {
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.rainy = rainy, o.n_rainy = 1, o.clean = clean, o.n_clean = 1;
    o.preset = preset;
    o.steps = 6, o.crop = 64, o.ngf = 16, o.blocks = 5, o.ndf = 16, o.threads = 1, o.backend = "cpu";
    return o;
}

/* Two steps; then the checkpoint and the trainer's own two files. */
static bool train(const dr_train_opts *o) {
    dr_trainer *t;
    dr_train_metrics m;
    dr_error e = {0};
    if (dr_trainer_open(o, &t, &e)) return printf("# %s\n", e.text), false;
    bool ok = true;
    for (int i = 0; i < 2 && ok; i++) ok = !dr_trainer_step(t, &m, &e);
    ok = ok && !dr_trainer_save(t, ckpt, &e) && !dr_trainer_export(t, gen, "F16", &e) &&
         !dr_trainer_export_all(t, all, &e);
    dr_trainer_close(t);
    return ok;
}

static bool same(const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    bool is =
        !dr_fs_read(a, 1 << 28, &x, &n, NULL) && !dr_fs_read(b, 1 << 28, &y, &m, NULL) && n == m && !memcmp(x, y, n);
    dr_free(x);
    dr_free(y);
    return is;
}

TEST(the_files_are_those_of_the_trainer) {
    CHECK(begin());
    dr_error e = {0};
    dr_train_opts o[4] = {small("product"), small("released"), small("product"), small("released")};
    o[2].terms = "for tests only";
    o[3].pool = 2, o[3].residual = 3, o[3].ema_decay = 0.9, o[3].precision = "bf16", o[3].lr = 3e-4;
    for (int i = 0; i < 4; i++) {
        CHECK(train(&o[i]));
        CHECK_MSG(!dr_checkpoint_export(ckpt, gen2, all2, &e), "%s", e.text);
        CHECK_MSG(same(gen, gen2) && same(all, all2), "case %d", i);
        unlink(gen2), unlink(all2);
    }
    CHECK(!dr_checkpoint_export(ckpt, NULL, all2, &e) && dr_fs_exists(all2) && !dr_fs_exists(gen2));
    fixture_done(&fx);
}

/* What a training file of a checkpoint is for. */
TEST(a_training_goes_on_from_them) {
    CHECK(begin());
    dr_train_opts o = small("product");
    dr_error e = {0};
    dr_trainer *t;
    CHECK(train(&o) && !dr_checkpoint_export(ckpt, gen2, all2, &e));
    o.init = all2;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    CHECK_MSG(strstr(dr_trainer_describe(t), "starts from 6 nets"), "%s", dr_trainer_describe(t));
    dr_trainer_close(t);
    fixture_done(&fx);
}

static bool refused(const char *data, size_t len, const char *what) {
    dr_error e = {0};
    bool wrote = fixture_write(&fx, "bad.safetensors", data, len);
    dr_status s = dr_checkpoint_export(fixture_path(&fx, "bad.safetensors"), gen2, all2, &e);
    bool left = dr_fs_exists(gen2) || dr_fs_exists(all2);
    if (s != DR_CORRUPT || left) printf("# %s: %s %s\n", what, dr_status_text(s), e.text);
    return wrote && s == DR_CORRUPT && !left && *e.text;
}

TEST(what_is_no_whole_checkpoint_leaves_nothing) {
    CHECK(begin());
    dr_train_opts o = small("product");
    dr_error e = {0};
    char *data = NULL;
    size_t n = 0;
    CHECK(train(&o));
    CHECK(dr_checkpoint_export(fixture_path(&fx, "none"), gen2, all2, &e) == DR_NOT_FOUND);
    CHECK(!dr_fs_read(all, 1 << 28, &data, &n, NULL) && refused(data, n, "a training file"));
    dr_free(data);
    CHECK(!dr_fs_read(ckpt, 1 << 28, &data, &n, NULL));
    CHECK(refused(data, n - 1, "cut off") && refused(data, n / 2, "half of it") && refused(data, 0, "empty"));
    data[n - 5] ^= 1;
    CHECK(refused(data, n, "another bit"));
    data[n - 5] ^= 1;
    char *at = memmem(data, n, "\"ema.G_A.model.1.weight\"", 24); /* one tensor under another name */
    CHECK(at != NULL);
    at[1] = 'E';
    CHECK(refused(data, n, "a tensor is missing"));
    at[1] = 'e';
    at = memmem(data, n, "\"train.ndf\":\"16\"", 16); /* nets of another size */
    CHECK(at != NULL);
    at[13] = '3', at[14] = '2';
    CHECK(refused(data, n, "other sizes"));
    at[13] = '1', at[14] = '7';
    CHECK(refused(data, n, "a size that no net has"));
    dr_free(data);
    fixture_done(&fx);
}
