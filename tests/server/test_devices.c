/* test_devices.c - what is told of a GPU is the sum over what is open: nothing without any, counters that never fall
 * back when one is closed, and nobody is asked after it was removed, whoever adds and removes meanwhile. */
#include "server/devices.h"
#include "tests/t.h"
#include <pthread.h>
#include <stdatomic.h>

/* --- engines and trainings that say what they are told to --- */

struct dr_engine {
    dr_device_state d;
    bool answers;
    atomic_bool closed;
};
struct dr_trainer {
    dr_device_state d;
};
static atomic_int asked_closed;

bool dr_engine_device(const dr_engine *e, dr_device_state *ret) {
    if (atomic_load(&e->closed)) atomic_fetch_add(&asked_closed, 1);
    *ret = e->d;
    return e->answers;
}
bool dr_trainer_device(const dr_trainer *t, dr_device_state *ret) {
    *ret = t->d;
    return true;
}

TEST(sums_over_what_is_open) {
    dr_device_state d;
    dr_engine a = {{100, 900, 1000, 5, 2, 1, 10}, true, false}, b = {{50, 900, 1000, 3, 1, 2, 20}, true, false};
    dr_engine cpu = {{0}, false, false};
    dr_trainer t = {{300, 600, 1000, 7, 0, 0, 0}};
    CHECK(!srv_devices_read(&d) && d.memory_used == 0);
    srv_devices_add_engine(NULL);
    srv_devices_add_trainer(NULL);
    srv_devices_remove(NULL);
    srv_devices_add_engine(&cpu);
    CHECK(!srv_devices_read(&d)); /* the CPU counts for nothing */
    srv_devices_add_engine(&a);
    srv_devices_add_engine(&b);
    CHECK(srv_devices_read(&d) && d.memory_used == 150 && d.memory_all == 1000 && d.memory_free == 900);
    CHECK(d.plans == 8 && d.plans_tuned == 3 && d.recorded == 3 && d.replayed == 30);
    srv_devices_add_trainer(&t);
    CHECK(srv_devices_read(&d) && d.memory_used == 450 && d.plans == 15);
    srv_devices_remove(&a);
    srv_devices_remove(&t);
    CHECK(srv_devices_read(&d) && d.memory_used == 50 && d.plans == 3);
    CHECK_MSG(d.recorded == 3 && d.replayed == 30, "%d, %d", (int)d.recorded, (int)d.replayed);
    b.answers = false; /* lost */
    CHECK(!srv_devices_read(&d));
    srv_devices_remove(&a); /* was removed already */
    srv_devices_remove(&b);
    srv_devices_remove(&cpu);
    CHECK(!srv_devices_read(&d));
}

static atomic_bool stop;
static void *come_and_go(void *arg) {
    static dr_engine mine[4][64];
    dr_engine *e = mine[*(int *)arg];
    for (int round = 0; !atomic_load(&stop); round++)
        for (int i = 0; i < 64; i++) {
            e[i].d = (dr_device_state){.memory_used = 1, .memory_all = 10, .replayed = 1};
            e[i].answers = true;
            atomic_store(&e[i].closed, false);
            srv_devices_add_engine(&e[i]);
            srv_devices_remove(&e[i]);
            atomic_store(&e[i].closed, true);
        }
    return NULL;
}

TEST(engines_come_and_go_while_others_ask) {
    pthread_t t[4];
    int id[4] = {0, 1, 2, 3}, some = 0;
    uint64_t before = 0;
    for (int i = 0; i < 4; i++) CHECK(!pthread_create(&t[i], NULL, come_and_go, &id[i]));
    for (int i = 0; i < 20000 || (some < 50 && i < 50000000); i++) { /* until the others have had their turn */
        dr_device_state d;
        some += srv_devices_read(&d);
        CHECK(d.memory_used <= 4 && d.replayed >= before);
        before = d.replayed;
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    CHECK_MSG(some > 0 && before > 0 && !atomic_load(&asked_closed), "%d, %d asked after the end", some,
              (int)atomic_load(&asked_closed));
}
