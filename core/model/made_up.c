#include "core/model/made_up.h"

#include "core/base/alloc.h"
#include <math.h>

static dr_status check(dr_model *m, int width, int height, int n, const dr_limits *lim, dr_error *err) {
    const int pw = dr_padded_side(width), ph = dr_padded_side(height);
    if (n < 1 || n > DR_BATCH_MAX)
        return dr_fail(err, DR_INVALID, "batch %d: it must be from 1 to %d", n, DR_BATCH_MAX);
    if (width < lim->side_min || height < lim->side_min || width > lim->side_max || height > lim->side_max)
        return dr_fail(err, DR_INVALID, "%d x %d pixels: sides must be from %d to %d", width, height, lim->side_min,
                       lim->side_max);
    dr_status s = dr_model_check_budget(m, width, height, lim->mem_budget, err);
    if (s) return s;
    const int room = dr_model_room(m, n, pw, ph, lim->mem_budget);
    if (room == n) return DR_OK;
    return dr_fail(err, DR_NOMEM, "%d pictures of %d x %d: there is memory for %d at a time", n, width, height, room);
}

dr_status dr_made_up_init(dr_made_up *s, dr_model *m, int width, int height, int n, dr_error *err) {
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    dr_status st = check(m, width, height, n, &lim, err); /* before the pictures are made */
    if (st) return st;
    dr_made_up r = {.m = m, .p = dr_calloc((size_t)n, sizeof *r.p), .n = n};
    if (!r.p) return dr_fail(err, DR_NOMEM, "no memory for %d pictures", n);
    for (int i = 0; i < n && !st; i++) {
        r.p[i].limits = lim;
        r.p[i].stats.input = (dr_picture_info){.width = width, .height = height, .bit_depth = 8, .channels = 3};
        st = dr_image_init(&r.p[i].img, width, height, 3, 8, err);
    }
    if (st)
        dr_made_up_done(&r);
    else
        *s = r;
    return st;
}

void dr_made_up_done(dr_made_up *s) {
    for (int i = 0; i < s->n; i++) dr_image_done(&s->p[i].img);
    dr_free(s->p);
    *s = (dr_made_up){0};
}

/* Waves of changing length, so that neighbours are alike as in a picture and no two rows equal. */
void dr_made_up_fill(dr_made_up *s) {
    for (int i = 0; i < s->n; i++) {
        dr_picture *p = &s->p[i];
        uint8_t *at = p->img.pixels;
        for (size_t k = 0, n = p->img.stride * (size_t)p->img.height; k < n; k++)
            at[k] = (uint8_t)(128 + (int)(120 * sinf((float)((k + (size_t)i) % 8191) * 0.05f)));
        p->state = DR_PICTURE_DECODED;
        p->spoiled = false;
    }
}

dr_status dr_made_up_run(dr_made_up *s, dr_error *err) {
    dr_picture *p[DR_BATCH_MAX];
    for (int i = 0; i < s->n; i++) p[i] = &s->p[i];
    dr_status st = dr_model_run_pictures(s->m, p, s->n, err);
    for (int i = 0; i < s->n && !st; i++)
        if (p[i]->status) {
            st = p[i]->status;
            if (err) *err = p[i]->err;
        }
    return st;
}
