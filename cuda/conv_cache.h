/* conv_cache.h - tuned plans as text: which engine with which knobs was fastest for a convolution on a device.
 *
 * One line a plan, fields parted by one tab:
 *   v2 CUDNN DEVICE CC SMS KIND TYPE N I H W O K KW PAD ENGINE KNOBS
 *   v2 91900 NVIDIA H100 80GB HBM3 90 132 forward bf16 8 256 66 66 256 3 3 0 62 2:0,13:1,18:0     ("-": no knobs)
 * KIND is forward, data or weights; or columns: not a plan, but whether the forward convolution of this shape is faster
 * with the columns of its window as channels (cuda/ops_conv_in.c); ENGINE is then 1 or 0, without knobs. v1 had no KW;
 * no program left such lines behind, and they are ignored like all others of another form.
 * The file comes from outside: cv_cache_parse_line() takes exactly what cv_cache_format_line() writes and nothing else.
 * A line for another cuDNN or device is well formed and kept, so that machines can share a file. No CUDA in here. */
#ifndef DR_CUDA_CONV_CACHE_H
#define DR_CUDA_CONV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CV_MAX_KNOBS       32
#define CV_CACHE_MAX_LINE  1024      /* bytes with the newline */
#define CV_CACHE_MAX_BYTES (1 << 20) /* a larger file is not read */
#define CV_CACHE_COLUMNS   3         /* a kind of line, behind those of cv_kind */

typedef struct cv_plan_id {
    int engine; /* cuDNN's global index */
    int n_knobs;
    struct {
        int type;
        int64_t value;
    } knob[CV_MAX_KNOBS];
} cv_plan_id;

typedef struct cv_cache_line {
    int cudnn; /* cudnnGetVersion(): 91900 */
    char device[128];
    int cc, sms; /* 90, 132 */
    int kind;    /* cv_kind, or CV_CACHE_COLUMNS */
    int type;    /* dk_type */
    int n, i, h, w, o, k, kw, pad;
    cv_plan_id plan;
} cv_cache_line;

/* text[0..len) without the newline. False: not a line of this form, ret untouched. */
bool cv_cache_parse_line(const char *text, size_t len, cv_cache_line *ret);
/* Writes the line with its newline and a NUL; returns its length without the NUL, 0 if it cannot be told in this form
 * (a device name with control characters, numbers out of bounds, cap too small). */
size_t cv_cache_format_line(const cv_cache_line *c, char *ret, size_t cap);

#endif
