/* Counts the instructions of each inference of a runner's first thread under qemu-user: a cost that repeats, where
 * time means nothing.
 *
 *   cc -O2 -shared -fPIC -o libinstructions.so instructions.c
 *   qemu-aarch64 -plugin libinstructions.so,out=count.txt program
 *
 * The runners call getppid, which nothing else there does, before and after each inference. `count.txt` has a line for
 * each call: how many instructions came before it. So what starting a program takes, which varies, is in no difference.
 *
 * Only the first thread is counted, because it alone computes when a runtime is told to use one thread, and
 * what others do (ONNX Runtime starts one of its own) depends on time. The inline addition that the interface
 * also has cannot tell threads apart, and loses counts when two run.
 *
 * The dynamically linked qemu-user loads it (the static one loads no plugins). Distributions package no
 * header, so the few declarations of plugin interface version 1 that are needed stand here.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
                                          enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t,
                                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { kGetppid = 173 }; /* of 64-bit Arm */

static uint64_t executed;
static FILE *file;

static void on_run(unsigned int thread, void *instructions) {
  if (thread == 0) executed += (uintptr_t)instructions;
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_run, QEMU_PLUGIN_CB_NO_REGS, (void *)qemu_plugin_tb_n_insns(block));
}

static void on_call(qemu_plugin_id_t id, unsigned int thread, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                    uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (thread == 0 && number == kGetppid) fprintf(file, "%" PRIu64 "\n", executed);
}

static void on_exit_(qemu_plugin_id_t id, void *unused) {
  (void)id, (void)unused;
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(file = fopen(argv[0] + 4, "w"))) {
    fprintf(stderr, "instructions: needs one argument, out=FILE, a file that can be written\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
  return 0;
}
