/* clock.cpp - modelled time (cusim_clock in include/cuda_runtime_api.h): one device that does all work in order, a host
 * that hands it over and waits. */
#include "cusim.h"
#include <mutex>

static std::mutex lock; /* guards what follows; a leaf */
typedef std::lock_guard<std::mutex> hold;
static double device_clock; /* cusim_pass: what events tell while no clock is modelled */
static struct {
    unsigned on;             /* its number; 0: no clock is modelled */
    unsigned n;              /* modelled so far */
    double work, host, wake; /* seconds */
    double end;              /* of all that is queued */
    cusim_time t;
} model;

void cusim::spend() {
    hold h(lock);
    if (!model.on) return;
    model.t.now += model.host;
    if (model.end < model.t.now) model.end = model.t.now;
    model.end += model.work;
    model.t.busy += model.work;
    if (model.end - model.t.now > model.t.most) model.t.most = model.end - model.t.now;
}

static void wait_until(double at, bool sleeps) {
    if (at <= model.t.now) return;
    if (!sleeps) model.t.spins++;
    at += sleeps ? model.wake : 0;
    model.t.waited += at - model.t.now;
    model.t.now = at;
}

void cusim::wait_all() {
    hold h(lock);
    if (model.on) wait_until(model.end, false);
}
bool cusim::all_done() {
    hold h(lock);
    return !model.on || model.end <= model.t.now;
}

cusim::moment cusim::when_done() {
    hold h(lock);
    if (!model.on) return moment{device_clock, 0};
    return moment{model.end > model.t.now ? model.end : model.t.now, model.on};
}
void cusim::wait_for(moment m, bool sleeps) {
    hold h(lock);
    if (model.on && m.clock == model.on) wait_until(m.at, sleeps);
}
bool cusim::has_come(moment m) {
    hold h(lock);
    return !model.on || m.clock != model.on || m.at <= model.t.now;
}

void cusim_pass(double seconds) {
    hold h(lock);
    device_clock += seconds;
}
void cusim_clock(double work, double host, double wake) {
    hold h(lock);
    const bool on = work >= 0;
    if (on && !model.on) model.t = cusim_time{}, model.end = 0, model.n++;
    model.on = on ? model.n : 0;
    model.work = work, model.host = host, model.wake = wake;
    model.t.most = on && model.end > model.t.now ? model.end - model.t.now : 0;
}
void cusim_clock_read(cusim_time *ret) {
    hold h(lock);
    *ret = model.t;
}
