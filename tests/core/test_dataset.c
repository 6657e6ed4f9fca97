/* test_dataset.c - what is found, in which order, what is left out, and that the fingerprint sees every change. */
#include "tests/t.h"
#include "core/train/dataset.h"
#include "tests/core/train_fixture.h"

static dr_status open_one(const char *source, const dr_dataset_opts *o, dr_dataset **ret, dr_error *err) {
    return dr_dataset_open("rainy", &source, 1, o, ret, err);
}

TEST(folder_is_searched_in_a_stable_order) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    /* made in another order than by name; one folder down, one in capitals, one without an ending */
    CHECK(fixture_picture(&f, "z.png", 40, 30, 3, 1) && fixture_picture(&f, "B.PNG", 33, 20, 4, 2) &&
          fixture_mkdir(&f, "m") && fixture_picture(&f, "m/inner", 20, 50, 3, 3) &&
          fixture_picture(&f, "a.png", 64, 48, 1, 77));
    CHECK(fixture_write(&f, "notes.txt", "no picture", 10) && fixture_write(&f, ".hidden.png", "x", 1));
    dr_dataset *d = NULL;
    dr_error err = {0};
    CHECK_MSG(!open_one(f.dir, NULL, &d, &err), "%s", err.text);
    CHECK(dr_dataset_count(d) == 4);
    const char *want[] = {"B.PNG", "a.png", "m/inner", "z.png"};
    for (int i = 0; i < 4; i++) CHECK(strcmp(dr_dataset_name(d, i), want[i]) == 0);
    int w, h;
    dr_dataset_size(d, 2, &w, &h);
    CHECK(w == 20 && h == 50);
    dr_pixels p;
    CHECK(!dr_dataset_get(d, 3, &p, NULL) && p.w == 40 && p.h == 30 && p.channels == 3);
    CHECK(p.data[(7 * 40 + 11) * 3] == 11 && p.data[(7 * 40 + 11) * 3 + 1] == 7 && p.data[(7 * 40 + 11) * 3 + 2] == 1);
    CHECK(!dr_dataset_get(d, 1, &p, NULL) && p.data[0] == 77 && p.data[1] == 77 && p.data[2] == 77); /* grey */
    CHECK(dr_dataset_smaller(d, 32) == 3 && dr_dataset_smaller(d, 20) == 0);
    CHECK(strstr(dr_dataset_describe(d), "4 pictures") && !strstr(dr_dataset_describe(d), "skipped"));
    dr_dataset_close(d);
    fixture_done(&f);
}

TEST(list_file_links_and_duplicates) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    CHECK(fixture_mkdir(&f, "p") && fixture_picture(&f, "p/one.png", 32, 32, 3, 1) &&
          fixture_picture(&f, "p/two.png", 32, 32, 3, 2) &&
          fixture_picture(&f, "copy.png", 32, 32, 3, 1));   /* same bytes as p/one.png */
    CHECK(symlink(f.dir, fixture_path(&f, "p/loop")) == 0); /* back up to the top */
    CHECK(symlink(fixture_path(&f, "p"), fixture_path(&f, "linked")) == 0);
    const char text[] = "# a comment\n\np/two.png\r\n  copy.png  \nmissing.png\np/one.png";
    CHECK(fixture_write(&f, "list.txt", text, sizeof text - 1));
    dr_dataset *d = NULL;
    dr_error err = {0};
    CHECK_MSG(!open_one(fixture_path(&f, "list.txt"), NULL, &d, &err), "%s", err.text);
    CHECK(dr_dataset_count(d) == 2);
    CHECK(strcmp(dr_dataset_name(d, 0), "p/two.png") == 0 && strcmp(dr_dataset_name(d, 1), "copy.png") == 0);
    CHECK(strstr(dr_dataset_describe(d), "1 duplicate") && strstr(dr_dataset_describe(d), "1 skipped") &&
          strstr(dr_dataset_describe(d), "missing.png"));
    dr_dataset_close(d);
    CHECK_MSG(!open_one(f.dir, NULL, &d, &err), "%s", err.text); /* ends in spite of the loop */
    CHECK(dr_dataset_count(d) == 2);
    dr_dataset_close(d);
    CHECK_MSG(!open_one(fixture_path(&f, "linked"), NULL, &d, &err), "%s", err.text);
    CHECK(strcmp(dr_dataset_name(d, 0), "loop/copy.png") == 0);
    dr_dataset_close(d);
    fixture_done(&f);
}

TEST(bad_pictures_are_left_out_and_none_left_is_an_error) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    CHECK(fixture_write(&f, "text.png", "this is text", 12) &&
          fixture_write(&f, "cut.png", "\x89PNG\r\n\x1a\n\0\0", 10));
    dr_dataset *d = NULL;
    dr_error err = {0};
    CHECK(open_one(f.dir, NULL, &d, &err) == DR_INVALID && strcmp(err.what, "no_pictures") == 0);
    CHECK(strstr(err.text, "2 skipped") && (strstr(err.text, "text.png") || strstr(err.text, "cut.png")));
    CHECK(fixture_picture(&f, "good.png", 30, 30, 3, 9));
    CHECK(!open_one(f.dir, NULL, &d, NULL) && dr_dataset_count(d) == 1 && strstr(dr_dataset_describe(d), "2 skipped"));
    dr_dataset_close(d);
    err = (dr_error){0};
    CHECK(open_one(fixture_path(&f, "nowhere"), NULL, &d, &err) == DR_NOT_FOUND && strstr(err.text, "nowhere"));
    CHECK(fixture_mkdir(&f, "empty"));
    err = (dr_error){0};
    CHECK(open_one(fixture_path(&f, "empty"), NULL, &d, &err) == DR_INVALID && strstr(err.text, "empty"));
    dr_dataset_opts o = {.n_max = 1};
    CHECK(fixture_picture(&f, "more.png", 30, 30, 3, 10));
    err = (dr_error){0};
    CHECK(open_one(f.dir, &o, &d, &err) == DR_TOO_LARGE && strcmp(err.setting, "n_max") == 0);
    fixture_done(&f);
}

TEST(fingerprint_sees_names_sizes_and_bytes) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    CHECK(fixture_picture(&f, "a.png", 32, 32, 3, 1) && fixture_picture(&f, "b.png", 32, 32, 3, 2));
    char print[5][65];
    dr_dataset *d = NULL;
    for (int i = 0; i < 5; i++) {
        if (i == 2) CHECK(rename(fixture_path(&f, "a.png"), fixture_path(&f, "c.png")) == 0);
        if (i == 3)
            CHECK(rename(fixture_path(&f, "c.png"), fixture_path(&f, "a.png")) == 0 &&
                  fixture_picture(&f, "b.png", 32, 32, 3, 3));
        if (i == 4) CHECK(fixture_picture(&f, "b.png", 32, 32, 3, 2));
        CHECK(!open_one(f.dir, NULL, &d, NULL));
        snprintf(print[i], sizeof print[i], "%s", dr_dataset_fingerprint(d));
        dr_dataset_close(d);
    }
    CHECK(strlen(print[0]) == 64 && strcmp(print[0], print[1]) == 0 && strcmp(print[0], print[4]) == 0);
    CHECK(strcmp(print[0], print[2]) && strcmp(print[0], print[3]));
    fixture_done(&f);
}

TEST(beyond_the_memory_cap_pictures_are_decoded_on_demand) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    char name[16];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%d.png", i);
        CHECK(fixture_picture(&f, name, 40, 40, 3, 10 * i));
    }
    dr_dataset *d = NULL;
    dr_dataset_opts o = {.mem_max = 2 * 40 * 40 * 3};
    CHECK(!open_one(f.dir, &o, &d, NULL) && dr_dataset_count(d) == 4 &&
          strstr(dr_dataset_describe(d), "2 decoded when needed"));
    dr_pixels p;
    for (int round = 0; round < 2; round++)
        for (int i = 3; i >= 0; i--) CHECK(!dr_dataset_get(d, i, &p, NULL) && p.data[2] == 10 * i && p.w == 40);
    CHECK(fixture_write(&f, "3.png", "gone", 4));
    dr_error err = {0};
    CHECK(!dr_dataset_get(d, 2, &p, NULL) && dr_dataset_get(d, 3, &p, &err) && strstr(err.text, "3.png"));
    CHECK(!dr_dataset_get(d, 2, &p, NULL) && p.data[2] == 20);
    dr_dataset_close(d);
    fixture_done(&f);
}

TEST(every_lack_of_memory_is_survived) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    CHECK(fixture_picture(&f, "a.png", 32, 32, 3, 1) && fixture_picture(&f, "b.png", 32, 32, 3, 2));
    CHECK(fixture_write(&f, "l.txt", "a.png\nb.png\n", 12));
    for (int kind = 0; kind < 2; kind++) {
        const char *source = kind ? fixture_path(&f, "l.txt") : f.dir;
        int opened = 0;
        for (long n = 1; n < 400 && !opened; n++) {
            dr_dataset *d = NULL;
            dr_error err = {0};
            dr_alloc_fail_after(n, true);
            dr_status s = open_one(source, NULL, &d, &err);
            dr_alloc_fail_after(0, false);
            /* decoders may report the lack as a bad picture; then nothing is left */
            CHECK_MSG(s ? !d && err.text[0] : d != NULL, "allocation %ld", n);
            if (!s && dr_dataset_count(d) == 2 && strlen(dr_dataset_describe(d)) > 0) opened = 1;
            dr_dataset_close(d);
        }
        CHECK(opened);
    }
    fixture_done(&f);
}
