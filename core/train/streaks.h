/* streaks.h - rain rendered over clean pictures: layers from files or drawn by a renderer of our own.
 *
 * A layer L in [0,1] is the same for red, green and blue and goes over a background c in [0,1] either as c + L,
 * clipped, or as 1-(1-c)(1-L). Where it comes from:
 *
 *   file        grey pictures, white streaks on black, divided by their own 99.5 percentile (some are very faint), a
 *               random window of them, flipped, turned by up to turn_deg, enlarged by file_scale
 *   procedural  sparse points of random brightness, smeared along one direction that all of them share up to a small
 *               jitter: the layers of the usual light synthetic rain. Each streak is a line of length streak_len with
 *               a gaussian cross section of streak_width (its standard deviation is width/2.355) and ends that fade.
 *
 * Sometimes a second layer is added (heavier rain) and, rarely, a veil: a blend with light grey. Every number is drawn
 * anew for every sample from the caller's generator, so a sample depends on that and the background alone. */
#ifndef DR_TRAIN_STREAKS_H
#define DR_TRAIN_STREAKS_H

#include "core/base/rng.h"
#include "core/base/status.h"

typedef struct dr_streaks dr_streaks;

typedef struct dr_streaks_opts {
    double procedural;      /* part of the layers that are drawn rather than read; without files all are */
    double turn_deg;        /* file layers are turned by -turn_deg .. turn_deg */
    double file_scale[2];   /* and scaled by this */
    double strength[2];     /* peak of a layer: lo + (hi-lo) * u^strength_bias, u uniform */
    double strength_bias;   /* below 1 = more strong ones */
    double angle_deg;       /* procedural: direction within +-angle_deg of vertical (normal, cut there) */
    double jitter_deg;      /* standard deviation of single streaks around that direction */
    double streak_len[2];   /* pixels, log-uniform */
    double streak_width[2]; /* pixels, full width at half maximum */
    double density[2];      /* streaks per 1000 pixels of the picture, log-uniform, */
    double cover;           /* and so many that they cover at most this part of it, overlaps counted twice */
    double second;          /* probability of a second layer */
    double additive;        /* probability of c + L; otherwise screen */
    double veil, veil_max;  /* probability and greatest strength of the veil */
} dr_streaks_opts;
void dr_streaks_opts_init(dr_streaks_opts *o);

/* source: folder of layers, or a text file of paths, or "procedural" for drawn ones only. opts may be NULL. */
DR_MUSTUSE dr_status dr_streaks_open(const char *source, const dr_streaks_opts *opts, dr_streaks **ret, dr_error *err);
void dr_streaks_close(dr_streaks *s);
const char *dr_streaks_describe(const dr_streaks *s);    /* one line */
const char *dr_streaks_fingerprint(const dr_streaks *s); /* 64 hex digits; of no files: of the word */

/* Lay rain over rgb, (3,size,size) planar in [0,1], in place. One thread at a time. Errors: NOMEM and those of reading
 * a layer. */
DR_MUSTUSE dr_status dr_streaks_render(dr_streaks *s, dr_rng *rng, int size, float *rgb, dr_error *err);

/* One procedural layer, ADDED to layer (size,size), for tests: peak is near 1 before strength. */
void dr_streaks_draw(const dr_streaks_opts *o, dr_rng *rng, int size, float *layer);

#endif
