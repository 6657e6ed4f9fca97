/* ref.c - the obvious loops. Adjoints are written as scatters of the forward formula, so that they share nothing with
 * the kernels, which gather. */
#include "core/cpu/ref.h"
#include "core/tensor/be.h"
#include <math.h>
#include <string.h>

/* Flat index of (n,c,y,x). */
static size_t at(dr_shape s, int n, int c, int y, int x) {
    return (((size_t)n * (size_t)s.c + (size_t)c) * (size_t)s.h + (size_t)y) * (size_t)s.w + (size_t)x;
}

#define FOR_NC(s)                                                                                                      \
    for (int n = 0; n < (s).n; n++)                                                                                    \
        for (int c = 0; c < (s).c; c++)
#define FOR_YX(s)                                                                                                      \
    for (int y = 0; y < (s).h; y++)                                                                                    \
        for (int x = 0; x < (s).w; x++)

static void zero(dr_shape s, double *p) {
    memset(p, 0, dr_shape_count(s) * sizeof *p);
}

static double act1(dr_act act, double v) {
    switch (act) {
    case DR_ACT_RELU:
        return v < 0 ? 0 : v;
    case DR_ACT_LRELU:
        return v < 0 ? 0.2 * v : v;
    case DR_ACT_TANH:
        return tanh(v);
    case DR_ACT_NONE:
        break;
    }
    return v;
}

static double act1_bwd(dr_act act, double y) {
    switch (act) {
    case DR_ACT_RELU:
        return y > 0 ? 1 : 0;
    case DR_ACT_LRELU:
        return y > 0 ? 1 : 0.2;
    case DR_ACT_TANH:
        return 1 - y * y;
    case DR_ACT_NONE:
        break;
    }
    return 1;
}

void dr_ref_act(size_t n, dr_act act, const double *x, double *y) {
    for (size_t i = 0; i < n; i++) y[i] = act1(act, x[i]);
}

void dr_ref_act_bwd(size_t n, dr_act act, const double *y, const double *dy, double *dx) {
    for (size_t i = 0; i < n; i++) dx[i] = act1_bwd(act, y[i]) * dy[i];
}

void dr_ref_add_bcast(dr_shape s, int bc, const double *a, double f, const double *b, double *py) {
    dr_shape bs = dr_shape_make(s.n, bc, s.h, s.w);
    FOR_NC(s)
    FOR_YX(s) py[at(s, n, c, y, x)] = a[at(s, n, c, y, x)] + f * b[at(bs, n, bc == 1 ? 0 : c, y, x)];
}

void dr_ref_add_bcast_bwd(dr_shape s, int bc, double f, const double *dy, double *db) {
    dr_shape bs = dr_shape_make(s.n, bc, s.h, s.w);
    zero(bs, db);
    FOR_NC(s)
    FOR_YX(s) db[at(bs, n, bc == 1 ? 0 : c, y, x)] += f * dy[at(s, n, c, y, x)];
}

void dr_ref_clamp(size_t n, double lo, double hi, const double *x, double *y) {
    for (size_t i = 0; i < n; i++) y[i] = x[i] < lo ? lo : x[i] > hi ? hi : x[i];
}

void dr_ref_clamp_bwd(size_t n, double lo, double hi, const double *x, const double *dy, double *dx) {
    for (size_t i = 0; i < n; i++) dx[i] = x[i] < lo || x[i] > hi ? 0 : dy[i];
}

/* Every (output pixel, weight, input pixel) of a convolution that lies inside: `body` sees yi, wi, xi. */
#define FOR_CONV(xs, oc, d, body)                                                                                      \
    do {                                                                                                               \
        dr_shape ys = dr_shape_make((xs).n, oc, dr_conv_side((xs).h, d), dr_conv_side((xs).w, d));                     \
        dr_shape ws = dr_shape_make(oc, (xs).c, (d).k, (d).k);                                                         \
        FOR_NC(ys)                                                                                                     \
        FOR_YX(ys) for (int i = 0; i < (xs).c; i++) for (int u = 0; u < (d).k; u++) for (int v = 0; v < (d).k; v++) {  \
            int iy = y + u - (d).pad, ix = x + v - (d).pad;                                                            \
            if (iy < 0 || iy >= (xs).h || ix < 0 || ix >= (xs).w) continue;                                            \
            size_t yi = at(ys, n, c, y, x), wi = at(ws, c, i, u, v), xi = at(xs, n, i, iy, ix);                        \
            body;                                                                                                      \
        }                                                                                                              \
    } while (0)

void dr_ref_conv2d(dr_shape xs, int oc, dr_conv2d_desc d, const double *px, const double *w, const double *b,
                   double *py) {
    dr_shape os = dr_shape_make(xs.n, oc, dr_conv_side(xs.h, d), dr_conv_side(xs.w, d));
    FOR_NC(os)
    FOR_YX(os) py[at(os, n, c, y, x)] = b ? b[c] : 0;
    FOR_CONV(xs, oc, d, py[yi] += w[wi] * px[xi]);
}

void dr_ref_conv2d_dx(dr_shape xs, int oc, dr_conv2d_desc d, const double *dy, const double *w, double *dx) {
    zero(xs, dx);
    FOR_CONV(xs, oc, d, dx[xi] += w[wi] * dy[yi]);
}

void dr_ref_conv2d_dw(dr_shape xs, int oc, dr_conv2d_desc d, const double *px, const double *dy, double *dw,
                      double *db) {
    dr_shape os = dr_shape_make(xs.n, oc, dr_conv_side(xs.h, d), dr_conv_side(xs.w, d));
    FOR_CONV(xs, oc, d, dw[wi] += px[xi] * dy[yi]);
    if (!db) return;
    FOR_NC(os)
    FOR_YX(os) db[c] += dy[at(os, n, c, y, x)];
}

void dr_ref_norm_act(dr_shape s, double eps, dr_act act, const double *px, double *stats, double *py) {
    size_t m = (size_t)s.h * (size_t)s.w;
    FOR_NC(s) {
        size_t plane = (size_t)n * (size_t)s.c + (size_t)c;
        const double *x = px + plane * m;
        double mean = 0, var = 0;
        for (size_t i = 0; i < m; i++) mean += x[i];
        mean /= (double)m;
        for (size_t i = 0; i < m; i++) var += (x[i] - mean) * (x[i] - mean);
        double rstd = 1 / sqrt(var / (double)m + eps);
        stats[2 * plane] = mean;
        stats[2 * plane + 1] = rstd;
        for (size_t i = 0; i < m; i++) py[plane * m + i] = act1(act, (x[i] - mean) * rstd);
    }
}

void dr_ref_norm_act_bwd(dr_shape s, dr_act act, const double *px, const double *stats, const double *pd, double *po) {
    size_t m = (size_t)s.h * (size_t)s.w;
    FOR_NC(s) {
        size_t plane = (size_t)n * (size_t)s.c + (size_t)c;
        double mean = stats[2 * plane], rstd = stats[2 * plane + 1], mg = 0, mgx = 0;
        for (size_t i = plane * m; i < (plane + 1) * m; i++) {
            double xh = (px[i] - mean) * rstd, g = act1_bwd(act, xh) * pd[i];
            mg += g / (double)m;
            mgx += g * xh / (double)m;
        }
        for (size_t i = plane * m; i < (plane + 1) * m; i++) {
            double xh = (px[i] - mean) * rstd, g = act1_bwd(act, xh) * pd[i];
            po[i] = rstd * (g - mg - xh * mgx);
        }
    }
}

static int reflect(int i, int n) {
    if (i < 0) i = -i;
    return i >= n ? 2 * (n - 1) - i : i;
}

static int clamp_index(int i, int n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Resampling as a list of weights: every output pixel takes weight from input pixels. `forward` gathers, else the
 * adjoint: scatter. */
static void weigh(bool forward, double weight, double *x, double *y) {
    if (forward)
        *y += weight * *x;
    else
        *x += weight * *y;
}

static void pad(bool forward, dr_shape s, int p, double *px, double *py) {
    dr_shape o = dr_shape_make(s.n, s.c, s.h + 2 * p, s.w + 2 * p);
    if (forward)
        zero(o, py);
    else
        zero(s, px);
    FOR_NC(o)
    FOR_YX(o) weigh(forward, 1, &px[at(s, n, c, reflect(y - p, s.h), reflect(x - p, s.w))], &py[at(o, n, c, y, x)]);
}

static void down(bool forward, dr_shape s, double *px, double *py) {
    static const double w[3] = {0.25, 0.5, 0.25};
    dr_shape o = dr_shape_make(s.n, s.c, dr_blur_down_side(s.h), dr_blur_down_side(s.w));
    if (forward)
        zero(o, py);
    else
        zero(s, px);
    FOR_NC(o)
    FOR_YX(o)
    for (int u = -1; u <= 1; u++)
        for (int v = -1; v <= 1; v++)
            weigh(forward, w[u + 1] * w[v + 1], &px[at(s, n, c, reflect(2 * y + u, s.h), reflect(2 * x + v, s.w))],
                  &py[at(o, n, c, y, x)]);
}

/* y[2k] = x[k-1]/4 + 3x[k]/4, y[2k+1] = 3x[k]/4 + x[k+1]/4, indices clamped. */
static void up(bool forward, dr_shape s, double *px, double *py) {
    dr_shape o = dr_shape_make(s.n, s.c, 2 * s.h, 2 * s.w);
    if (forward)
        zero(o, py);
    else
        zero(s, px);
    FOR_NC(o)
    FOR_YX(o) for (int u = 0; u < 2; u++) for (int v = 0; v < 2; v++) {
        int iy = u ? clamp_index(y / 2 + (y % 2 ? 1 : -1), s.h) : y / 2;
        int ix = v ? clamp_index(x / 2 + (x % 2 ? 1 : -1), s.w) : x / 2;
        weigh(forward, (u ? 0.25 : 0.75) * (v ? 0.25 : 0.75), &px[at(s, n, c, iy, ix)], &py[at(o, n, c, y, x)]);
    }
}

void dr_ref_pad_reflect(dr_shape s, int p, const double *x, double *y) {
    pad(true, s, p, (double *)x, y);
}
void dr_ref_pad_reflect_bwd(dr_shape s, int p, const double *dy, double *dx) {
    pad(false, s, p, dx, (double *)dy);
}
void dr_ref_blur_down(dr_shape s, const double *x, double *y) {
    down(true, s, (double *)x, y);
}
void dr_ref_blur_down_bwd(dr_shape s, const double *dy, double *dx) {
    down(false, s, dx, (double *)dy);
}
void dr_ref_blur_up(dr_shape s, const double *x, double *y) {
    up(true, s, (double *)x, y);
}
void dr_ref_blur_up_bwd(dr_shape s, const double *dy, double *dx) {
    up(false, s, dx, (double *)dy);
}

void dr_ref_gather(dr_shape xs, const double *x, const int32_t *idx, int s, double *rows) {
    FOR_NC(xs)
    for (int i = 0; i < s; i++)
        rows[(size_t)(n * s + i) * (size_t)xs.c + (size_t)c] = x[at(xs, n, c, idx[i] / xs.w, idx[i] % xs.w)];
}

void dr_ref_gather_bwd(dr_shape xs, const double *drows, const int32_t *idx, int s, double *dx) {
    zero(xs, dx);
    FOR_NC(xs)
    for (int i = 0; i < s; i++)
        dx[at(xs, n, c, idx[i] / xs.w, idx[i] % xs.w)] = drows[(size_t)(n * s + i) * (size_t)xs.c + (size_t)c];
}

/* Element (row, column) of a matrix with `cols` columns. */
#define EL(p, cols, r, c) (p)[(size_t)(r) * (size_t)(cols) + (size_t)(c)]

void dr_ref_linear(int rows, int in, int out, const double *x, const double *w, const double *b, double *y) {
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double s = b ? b[o] : 0;
            for (int i = 0; i < in; i++) s += EL(x, in, r, i) * EL(w, in, o, i);
            EL(y, out, r, o) = s;
        }
}

void dr_ref_linear_dx(int rows, int in, int out, const double *dy, const double *w, double *dx) {
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < in; i++) {
            double s = 0;
            for (int o = 0; o < out; o++) s += EL(dy, out, r, o) * EL(w, in, o, i);
            EL(dx, in, r, i) = s;
        }
}

void dr_ref_linear_dw(int rows, int in, int out, const double *x, const double *dy, double *dw, double *db) {
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            for (int i = 0; i < in; i++) EL(dw, in, o, i) += EL(dy, out, r, o) * EL(x, in, r, i);
            if (db) db[o] += EL(dy, out, r, o);
        }
}

void dr_ref_l2norm(int rows, int cols, const double *v, double *norms, double *y) {
    for (int r = 0; r < rows; r++) {
        double s = 0;
        for (int i = 0; i < cols; i++) s += EL(v, cols, r, i) * EL(v, cols, r, i);
        norms[r] = sqrt(s);
        for (int i = 0; i < cols; i++) EL(y, cols, r, i) = EL(v, cols, r, i) / (norms[r] + 1e-7);
    }
}

/* From v = y (a+e): d(v_i/(a+e))/dv_j = [i=j]/(a+e) - v_i v_j / (a (a+e)^2). */
void dr_ref_l2norm_bwd(int rows, int cols, const double *y, const double *norms, const double *dy, double *dv) {
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < cols; i++) {
            double a = norms[r], e = a + 1e-7, s = 0;
            for (int j = 0; j < cols && a > 0; j++) s += EL(dy, cols, r, j) * EL(y, cols, r, j) * e;
            EL(dv, cols, r, i) = a > 0 ? EL(dy, cols, r, i) / e - EL(y, cols, r, i) * e * s / (a * e * e) : 0;
        }
}

/* e^(c_ij/T) with j in i's group. The exponents are at most 1/T: no overflow in double for T > 0.002. */
static double similarity(double temperature, int cols, const double *q, const double *k, int i, int j) {
    double c = 0;
    for (int l = 0; l < cols; l++) c += EL(q, cols, i, l) * EL(k, cols, j, l);
    return exp(c / temperature);
}

static double nce_sum(double temperature, int s, int cols, const double *q, const double *k, int i) {
    double sum = exp(-10 / temperature);
    for (int j = i / s * s; j < i / s * s + s; j++) sum += similarity(temperature, cols, q, k, i, j);
    return sum;
}

double dr_ref_nce(int groups, double temperature, int rows, int cols, const double *q, const double *k) {
    double loss = 0;
    for (int i = 0; i < rows; i++)
        loss -= log(similarity(temperature, cols, q, k, i, i) / nce_sum(temperature, rows / groups, cols, q, k, i));
    return loss / rows;
}

void dr_ref_nce_bwd(int groups, double temperature, int rows, int cols, const double *q, const double *k, double g,
                    double *dq) {
    int s = rows / groups;
    for (int i = 0; i < rows; i++) {
        double sum = nce_sum(temperature, s, cols, q, k, i);
        for (int l = 0; l < cols; l++) EL(dq, cols, i, l) = 0;
        for (int j = i / s * s; j < i / s * s + s; j++) {
            double p = similarity(temperature, cols, q, k, i, j) / sum - (i == j);
            for (int l = 0; l < cols; l++) EL(dq, cols, i, l) += g / (rows * temperature) * p * EL(k, cols, j, l);
        }
    }
}

double dr_ref_gan(size_t n, dr_gan_loss mode, const double *s) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) switch (mode) {
        case DR_GAN_HINGE_REAL:
            sum += fmax(0, 1 - s[i]);
            break;
        case DR_GAN_HINGE_FAKE:
            sum += fmax(0, 1 + s[i]);
            break;
        case DR_GAN_LSGAN_REAL:
            sum += (s[i] - 1) * (s[i] - 1);
            break;
        case DR_GAN_LSGAN_FAKE:
            sum += s[i] * s[i];
            break;
        case DR_GAN_NEG_MEAN:
            sum -= s[i];
            break;
        }
    return sum / (double)n;
}

void dr_ref_gan_bwd(size_t n, dr_gan_loss mode, const double *s, double g, double *ds) {
    for (size_t i = 0; i < n; i++) {
        double d = 0;
        switch (mode) {
        case DR_GAN_HINGE_REAL:
            d = s[i] < 1 ? -1 : 0;
            break;
        case DR_GAN_HINGE_FAKE:
            d = s[i] > -1 ? 1 : 0;
            break;
        case DR_GAN_LSGAN_REAL:
            d = 2 * (s[i] - 1);
            break;
        case DR_GAN_LSGAN_FAKE:
            d = 2 * s[i];
            break;
        case DR_GAN_NEG_MEAN:
            d = -1;
            break;
        }
        ds[i] = g * d / (double)n;
    }
}

double dr_ref_l1(size_t n, const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs(a[i] - b[i]);
    return sum / (double)n;
}

void dr_ref_l1_bwd(size_t n, const double *a, const double *b, double g, double *da) {
    for (size_t i = 0; i < n; i++) da[i] = g / (double)n * ((a[i] > b[i]) - (a[i] < b[i]));
}

/* Bin (u, v) of the whole transform of one plane of a - b: (re, im). */
static void bin(dr_shape s, const double *a, const double *b, int u, int v, double ret[2]) {
    double re = 0, im = 0, root = sqrt((double)s.h * (double)s.w);
    FOR_YX(s) {
        double angle = 2 * M_PI * ((double)u * y / s.h + (double)v * x / s.w);
        size_t i = (size_t)y * (size_t)s.w + (size_t)x;
        re += (a[i] - b[i]) * cos(angle) / root;
        im -= (a[i] - b[i]) * sin(angle) / root;
    }
    ret[0] = re, ret[1] = im;
}

/* Both passes, plane by plane and bin by bin. */
static double freq(dr_shape s, const double *a, const double *b, double g, double *da) {
    size_t hw = (size_t)s.h * (size_t)s.w, n = dr_shape_count(s);
    double sum = 0, each = g / (double)n / sqrt((double)hw);
    if (da) zero(s, da);
    for (size_t plane = 0; plane < n; plane += hw)
        for (int u = 0; u < s.h; u++)
            for (int v = 0; v < s.w; v++) {
                double f[2], size;
                bin(s, a + plane, b + plane, u, v, f);
                sum += size = hypot(f[0], f[1]);
                if (!da || size == 0) continue;
                FOR_YX(s) {
                    double angle = 2 * M_PI * ((double)u * y / s.h + (double)v * x / s.w);
                    da[plane + (size_t)y * (size_t)s.w + (size_t)x] +=
                        each * (f[0] * cos(angle) - f[1] * sin(angle)) / size;
                }
            }
    return sum / (double)n;
}

double dr_ref_freq(dr_shape s, const double *a, const double *b) {
    return freq(s, a, b, 0, NULL);
}

void dr_ref_freq_bwd(dr_shape s, const double *a, const double *b, double g, double *da) {
    (void)freq(s, a, b, g, da);
}

void dr_ref_adam(const dr_adam_desc *d, size_t n, double *p, const double *g, double *m, double *v) {
    double b1 = (double)d->beta1, b2 = (double)d->beta2;
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
        double m_hat = m[i] / (1 - pow(b1, (double)d->t)), v_hat = v[i] / (1 - pow(b2, (double)d->t));
        p[i] -= (double)d->lr * m_hat / (sqrt(v_hat) + (double)d->eps);
    }
}

void dr_ref_ema(double decay, size_t n, const double *p, double *ema) {
    for (size_t i = 0; i < n; i++) ema[i] = decay * ema[i] + (1 - decay) * p[i];
}
