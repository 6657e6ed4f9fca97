/* test_micro.c - a step in parts of the batch is the step of the whole batch: every gradient of every net and every
 * loss up to rounding, the same positions of patches, and the image pools asked once for each picture, in order. */
#include "tests/core/micro.h"
#include "tests/t.h"

static dr_error err;

static void compare(const micro_run *whole, const micro_run *parts, int micro) {
    double worst = 0, loss = 0;
    for (int i = 0; i < DR_NETS; i++) {
        double d = micro_distance(whole->grad[i], parts->grad[i], whole->n[i]);
        if (d > worst || isnan(d)) worst = d;
    }
    for (int k = 0; k < MICRO_STEPS; k++) {
        CHECK(whole->m[k].n == parts->m[k].n && whole->m[k].n >= 18);
        for (int i = 0; i < whole->m[k].n; i++) {
            CHECK(!strcmp(whole->m[k].name[i], parts->m[k].name[i]));
            double d = fabs(whole->m[k].value[i] - parts->m[k].value[i]) / (1e-9 + fabs(whole->m[k].value[i]));
            if (d > loss || isnan(d)) loss = d;
        }
    }
    printf("# %d of %d at a time: gradients within %.2g, losses within %.2g; %.0f of %.0f MB\n", micro, MICRO_BATCH,
           worst, loss, (double)parts->high_water / (1 << 20), (double)whole->high_water / (1 << 20));
    CHECK_MSG(worst < 2e-5, "%g", worst);
    CHECK_MSG(loss < 2e-6, "%g", loss);
    for (int i = 0; i < 2; i++) {
        CHECK_MSG(!memcmp(&whole->rng[i], &parts->rng[i], sizeof whole->rng[i]), "pool %d was asked differently", i);
        CHECK(micro_distance(whole->pool[i], parts->pool[i], whole->pool_floats) < 1e-5);
    }
}

TEST(parts_add_up_to_the_batch) {
    micro_run whole, parts;
    CHECK_MSG(!micro_steps("cpu", &micro_all, MICRO_BATCH, 0, MICRO_STEPS, NULL, NULL, &whole, &err), "%s", err.text);
    for (int micro = 1; micro < MICRO_BATCH && !t_bad; micro++) {
        CHECK_MSG(!micro_steps("cpu", &micro_all, MICRO_BATCH, micro, MICRO_STEPS, NULL, NULL, &parts, &err), "%s",
                  err.text);
        compare(&whole, &parts, micro);
        CHECK(parts.high_water < whole.high_water * 4 / 5);
        micro_done(&parts);
    }
    micro_done(&whole);
}

TEST(parts_as_large_as_the_batch_are_the_batch) {
    micro_run whole, parts;
    CHECK_MSG(!micro_steps("cpu", &micro_all, MICRO_BATCH, 0, 1, NULL, NULL, &whole, &err), "%s", err.text);
    CHECK_MSG(!micro_steps("cpu", &micro_all, MICRO_BATCH, MICRO_BATCH, 1, NULL, NULL, &parts, &err), "%s", err.text);
    for (int i = 0; i < DR_NETS; i++) CHECK(!memcmp(whole.grad[i], parts.grad[i], whole.n[i] * sizeof(float)));
    micro_done(&whole);
    micro_done(&parts);
}

/* The gradients do differ by the pictures: a part that is left out or counted twice would be seen. */
TEST(the_measure_sees_a_missing_picture) {
    micro_run three, two;
    CHECK_MSG(!micro_steps("cpu", &micro_all, 3, 0, 1, NULL, NULL, &three, &err), "%s", err.text);
    CHECK_MSG(!micro_steps("cpu", &micro_all, 2, 0, 1, NULL, NULL, &two, &err), "%s", err.text);
    for (int i = 0; i < DR_NETS; i++) CHECK(micro_distance(three.grad[i], two.grad[i], three.n[i]) > 0.01);
    micro_done(&three);
    micro_done(&two);
}
